//! Messages: the stored layout, batches, properties, ids, and the batch record around them.
//!
//! There are two readers of the stored layout, the clients' in `protocol` and the broker's in `storage`;
//! they must agree. Bodies are opaque to both: nothing in the product decompresses, so that a compression
//! bomb is as many bytes as it came in, which is asserted here.

use bytes::{Bytes, BytesMut};
use gantry_protocol::batch::{self as wire_batch};
use gantry_protocol::message::{Message, sys_flags};
use gantry_protocol::message_id::OffsetMessageId;
use gantry_protocol::{properties, topic};
use gantry_storage::batch::BatchView;
use gantry_storage::message::{self as stored, MessageView};
use gantry_storage::{PhysicalOffset, QueueOffset};

use crate::input::Input;

/// The first byte chooses the format.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 5 {
        0 => stored_messages(input.rest()),
        1 => batch_body(input.rest()),
        2 => properties_text(input.rest()),
        3 => batch_record(input.rest()),
        _ => names(input.rest()),
    }
}

fn stored_messages(bytes: &[u8]) {
    let mut input = Bytes::copy_from_slice(bytes);
    loop {
        let before = input.clone();
        let decoded = Message::decode(&mut input);
        match decoded {
            Ok(Some(message)) => {
                let whole = &before[..message.stored_bytes];
                assert_eq!(before.len() - input.len(), message.stored_bytes);
                agree(whole, &message);
            }
            Ok(None) => return,
            Err(_) => {
                assert_eq!(input, before, "an error takes nothing");
                break;
            }
        }
    }
    if let Ok(view) = MessageView::parse(bytes) {
        look_at(&view);
    }
}

/// Both readers see the same in one message, as far as the broker's takes it at all.
fn agree(whole: &[u8], message: &Message) {
    let Ok(view) = MessageView::parse(whole) else {
        // The broker never stores an IPv6 store host, nor fewer bytes than an IPv4 message has.
        assert!(
            message.sys_flag & sys_flags::STORE_HOST_V6 != 0
                || whole.len() < stored::MESSAGE_BYTES_MIN,
            "{whole:?}"
        );
        return;
    };
    assert_eq!(view.topic(), message.topic);
    assert_eq!(view.queue_id(), message.queue_id as u32);
    assert_eq!(view.flag(), message.flag);
    assert_eq!(view.sys_flag(), message.sys_flag);
    assert_eq!(view.queue_offset().get(), message.queue_offset as u64);
    assert_eq!(view.physical_offset().get(), message.physical_offset as u64);
    assert_eq!(view.born_timestamp(), message.born_timestamp);
    assert_eq!(view.born_host(), message.born_host);
    assert_eq!(view.store_timestamp(), message.store_timestamp as u64);
    assert_eq!(view.reconsume_times(), message.reconsume_times);
    assert_eq!(view.prepared_offset(), message.prepared_transaction_offset);
    assert_eq!(view.body_crc(), message.body_crc);
    // Compressed or not: the bytes that are there, no more.
    assert_eq!(view.body(), &message.body[..]);
    assert!(view.body().len() < whole.len());
    assert_eq!(view.properties(), message.properties.as_bytes());
    look_at(&view);

    let mut patched = whole.to_vec();
    let (queue, physical) = (QueueOffset::new(7), PhysicalOffset::new(1 << 40));
    let host = "192.0.2.9:10911".parse().unwrap();
    stored::patch(&mut patched, queue, physical, host).unwrap();
    let view = MessageView::parse(&patched).unwrap();
    assert_eq!(
        (view.queue_offset(), view.physical_offset()),
        (queue, physical)
    );
    assert_eq!(view.store_host(), host);
    assert_eq!(
        view.body(),
        &message.body[..],
        "the patch stays in its fields"
    );
}

fn look_at(view: &MessageView<'_>) {
    let bytes = view.bytes().len();
    assert!(view.body().len() + view.topic().len() + view.properties().len() < bytes);
    let terms = stored::Terms::of(view.properties());
    assert_eq!(
        terms.tags_code(),
        view.property(stored::PROPERTY_TAGS)
            .map_or(0, |tag| i64::from(stored::java_hash(tag)))
    );
    assert!(terms.keys().count() <= view.properties().len() + 1);
    let _ = (view.born_host(), view.store_host(), view.store_timestamp());
}

fn batch_body(bytes: &[u8]) {
    let messages: Result<Vec<_>, _> = wire_batch::decode(bytes).collect();
    let Ok(messages) = messages else {
        return;
    };
    let mut again = BytesMut::new();
    for message in &messages {
        wire_batch::encode(message, &mut again);
    }
    assert_eq!(again.len(), bytes.len(), "a batch is its messages");
    let decoded: Result<Vec<_>, _> = wire_batch::decode(&again).collect();
    assert_eq!(decoded.unwrap(), messages);
}

/// The readers of properties in `protocol` and in `storage` agree.
fn properties_text(bytes: &[u8]) {
    let here: Vec<_> = stored::properties(bytes).collect();
    assert!(here.len() <= bytes.len());
    let terms = stored::Terms::of(bytes);
    assert!(terms.keys().count() <= bytes.len() + 1);
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let there: Vec<_> = properties::iter(text).collect();
    let named: Vec<_> = here.iter().filter(|(name, _)| !name.is_empty()).collect();
    assert_eq!(there.len(), named.len());
    for ((name, value), (named, valued)) in there.iter().zip(named) {
        assert_eq!((name.as_bytes(), value.as_bytes()), (*named, *valued));
        assert_eq!(
            properties::get(text, name),
            stored::property(bytes, name),
            "property {name:?} of {text:?}"
        );
    }
    let mut builder = properties::Builder::new();
    for (name, value) in there.iter().filter(|(_, value)| !value.contains('\u{1}')) {
        builder.push(name, value);
    }
    let built = builder.finish();
    let kept: Vec<_> = properties::iter(&built).collect();
    assert!(kept.iter().all(|pair| there.contains(pair)));
}

fn batch_record(bytes: &[u8]) {
    let payload = Bytes::copy_from_slice(bytes);
    let Ok(view) = BatchView::parse(&payload) else {
        return;
    };
    assert!(view.message_count() <= bytes.len() / 32);
    for (number, (row, hashes)) in view.rows().enumerate() {
        assert_eq!(view.row(number), Some(row));
        assert_eq!(view.row_at(row.position), Some(row));
        assert_eq!(hashes.count(), usize::from(row.key_count));
        let message = view.message(&row);
        assert_eq!(message.len(), row.size as usize);
        if let Ok(view) = MessageView::parse(&message) {
            look_at(&view);
        }
    }
    if let Ok(commands) = view.commands() {
        let encoded = gantry_storage::tables::encode_commands(&commands);
        let decoded = gantry_storage::tables::decode_commands(&encoded).unwrap();
        assert_eq!(decoded, commands);
    }
}

fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(id) = text.parse::<OffsetMessageId>() {
        assert_eq!(id.to_string(), text.to_ascii_uppercase());
    }
    if topic::check_topic(text).is_ok() {
        assert!(!text.is_empty() && text.len() <= 255);
    }
    drop(topic::check_group(text));
    let _ = (topic::is_system(text), topic::is_sendable(text));
    let _ = topic::group_of_retry_topic(text);
}
