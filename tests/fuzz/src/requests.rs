//! Requests to a real broker: every code with headers and bodies that are nearly right, or nothing like it.
//!
//! A two-way request is answered exactly once and in time, a oneway one never, and the broker goes on.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use gantry_protocol::{Encoding, RemotingCommand, RequestCode};

use crate::input::Input;
use crate::node::Node;
use templates::{TEMPLATES, Template};

mod templates;

/// One node for all inputs of the process.
pub(crate) static NODE: Mutex<Option<Node>> = Mutex::new(None);

/// Values that handlers must think about.
const VALUES: [&str; 24] = [
    "",
    "0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "32",
    "65535",
    "65536",
    "2147483647",
    "-2147483648",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "1e3",
    "true",
    "false",
    "T",
    "G",
    "%RETRY%G",
    "SQL92",
    "a > 1 AND b IS NOT NULL",
    "broker-a",
];

/// Keeps pulls that find nothing from waiting longer than an input may take.
const SUSPEND_MS: &str = "10";

/// The first byte chooses: a template with edits, or bytes.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut kept = NODE.lock().unwrap_or_else(PoisonError::into_inner);
    let node = Node::for_input(&mut kept);
    if input.byte().is_multiple_of(16) {
        return node.shout(input.rest());
    }
    for _ in 0..4 {
        node.ask(request(&mut input));
        if input.is_empty() {
            return;
        }
    }
}

fn request(input: &mut Input<'_>) -> RemotingCommand {
    let template = &TEMPLATES[input.below(TEMPLATES.len())];
    let mut request = RemotingCommand::request(RequestCode(template.code), 0);
    let modes = input.byte();
    if modes & 1 == 1 && i16::try_from(template.code).is_ok() {
        request.encoding = Encoding::RocketMq;
    }
    for (name, value) in template.fields {
        request.fields.push(name, value);
    }
    request.body = Bytes::from_static(template.body);
    if modes & 2 == 2 {
        request = request.into_oneway();
    }
    if modes & 4 == 4 {
        request.code = i32::from(input.u16());
    }
    for _ in 0..modes >> 4 {
        edit(&mut request, template, input);
    }
    keep_short(&mut request);
    request
}

fn edit(request: &mut RemotingCommand, template: &Template, input: &mut Input<'_>) {
    let name = if template.fields.is_empty() || input.byte().is_multiple_of(8) {
        let other = &TEMPLATES[input.below(TEMPLATES.len())];
        other.fields.first().map_or("extra", |(name, _)| *name)
    } else {
        template.fields[input.below(template.fields.len())].0
    };
    match input.byte() % 8 {
        0 => request.fields.remove(name),
        1 | 2 => {
            let text = input.text();
            request.fields.set(name, &text);
        }
        3 => request.body = Bytes::copy_from_slice(input.piece()),
        4 if !request.body.is_empty() => {
            let mut body = request.body.to_vec();
            let at = input.below(body.len());
            let piece = input.piece();
            let end = (at + usize::from(input.byte() % 8)).min(body.len());
            body.splice(at..end, piece.iter().copied());
            request.body = body.into();
        }
        _ => request.fields.set(name, VALUES[input.below(VALUES.len())]),
    }
}

fn keep_short(request: &mut RemotingCommand) {
    if request.fields.get("suspendTimeoutMillis").is_some() {
        request.fields.set("suspendTimeoutMillis", SUSPEND_MS);
    }
}
