//! The name server's key-value table: codes 100, 101, 102, 219.

header! {
    /// `PUT_KV_CONFIG` (100).
    PutKvRequest<'a> {
        namespace: &'a str = "namespace",
        key: &'a str = "key",
        value: &'a str = "value",
    }
}

header! {
    /// `GET_KV_CONFIG` (101) and `DELETE_KV_CONFIG` (102).
    KvRequest<'a> {
        namespace: &'a str = "namespace",
        key: &'a str = "key",
    }
}

header! {
    /// The response to 101.
    KvResponse<'a> {
        value: Option<&'a str> = "value",
    }
}

header! {
    /// `GET_KVLIST_BY_NAMESPACE` (219).
    KvListRequest<'a> {
        namespace: &'a str = "namespace",
    }
}
