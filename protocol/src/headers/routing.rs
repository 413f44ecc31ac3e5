//! Fields that any request may carry beside its own.

use crate::Fields;

/// Broker name that the sender meant, if it says so: `bname`, or `n` of a short-named send.
pub fn broker_name(fields: &Fields) -> Option<&str> {
    let named = fields.get("bname").filter(|name| !name.is_empty());
    named
        .or_else(|| fields.get("n"))
        .filter(|name| !name.is_empty())
}

/// Writes the broker name that a request is meant for.
pub fn set_broker_name(fields: &mut Fields, name: &str) {
    fields.set("bname", name);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_name_is_found() {
        let mut fields: Fields = [("n", "b-1")].into_iter().collect();
        assert_eq!(broker_name(&fields), Some("b-1"));
        set_broker_name(&mut fields, "b-2");
        assert_eq!(broker_name(&fields), Some("b-2"));
        set_broker_name(&mut fields, "");
        assert_eq!(broker_name(&fields), Some("b-1"));
        assert_eq!(broker_name(&Fields::new()), None);
    }
}
