//! Histories in files: written by many threads, cut short, merged.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::thread;

use gantry_checker::{Event, Merged, Note, ReadError, What, Writer};
use tempfile::tempdir;

use crate::script::{Script, plain, queue, sent};

fn lines(events: &[Event]) -> String {
    events
        .iter()
        .map(|event| serde_json::to_string(event).unwrap() + "\n")
        .collect()
}

fn read(paths: &[std::path::PathBuf]) -> Vec<Event> {
    Merged::open(paths)
        .unwrap()
        .map(|entry| entry.unwrap().event)
        .collect()
}

#[test]
fn what_many_threads_write_is_read_in_the_order_of_time() {
    const THREADS: usize = 4;
    const EACH: usize = 200;
    let directory = tempdir().unwrap();
    let path = directory.path().join("history");
    let writer = Writer::open(&path).unwrap();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let writer = &writer;
            scope.spawn(move || {
                let by = format!("p{thread}");
                for id in 0..EACH as u64 {
                    let call = writer.invoke(&by, plain(id)).unwrap();
                    writer.ok(&by, call, sent(&queue(0), id)).unwrap();
                }
            });
        }
    });
    let events = read(&[path]);
    assert_eq!(events.len(), 2 * THREADS * EACH);
    assert!(events.is_sorted_by_key(|event| event.at));
    for thread in 0..THREADS {
        let by = format!("p{thread}");
        let own = events.iter().filter(|event| event.by == by);
        let begins: Vec<bool> = own
            .map(|event| matches!(event.what, What::Invoke { .. }))
            .collect();
        let alternating: Vec<bool> = (0..2 * EACH).map(|place| place % 2 == 0).collect();
        assert_eq!(begins, alternating);
    }
}

#[test]
fn a_second_writer_goes_on_with_the_file() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("history");
    let first = Writer::open(&path).unwrap().invoke("p", plain(1)).unwrap();
    let second = Writer::open(&path).unwrap().invoke("p", plain(2)).unwrap();
    assert!(second > first);
    assert_eq!(read(&[path]).len(), 2);
}

#[test]
fn a_torn_last_line_is_left_out() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("history");
    let mut script = Script::default();
    script.send("p", 1, 0);
    let text = lines(&script.events);
    fs::write(&path, &text[..text.len() - 3]).unwrap();
    let mut merged = Merged::open(std::slice::from_ref(&path)).unwrap();
    let events: Vec<Event> = merged.by_ref().map(|entry| entry.unwrap().event).collect();
    assert_eq!(events, script.events[..1]);
    assert_eq!(merged.torn().collect::<Vec<_>>(), [path.as_path()]);
}

#[test]
fn a_broken_line_before_the_last_is_an_error() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("history");
    let mut script = Script::default();
    script.note(Note::LoadEnds);
    fs::write(&path, lines(&script.events)).unwrap();
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"at\":1\n").unwrap();
    let results: Vec<_> = Merged::open(&[path]).unwrap().collect();
    assert!(
        matches!(results[0], Err(ReadError::Line { line: 2, .. })),
        "{results:?}"
    );
}

#[test]
fn lines_that_go_back_in_time_are_an_error() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("history");
    let mut script = Script::default();
    script.note(Note::LoadEnds);
    script.note(Note::LoadEnds);
    script.events.reverse();
    fs::write(&path, lines(&script.events)).unwrap();
    let results: Vec<_> = Merged::open(&[path]).unwrap().collect();
    assert!(
        matches!(results[0], Err(ReadError::Disorder { line: 2, .. })),
        "{results:?}"
    );
}

#[test]
fn files_are_merged_by_time_and_beginnings_come_first() {
    let directory = tempdir().unwrap();
    let mut one = Script::default();
    one.send("p", 1, 0);
    let mut other = Script::default();
    other.wait(1);
    other.send("q", 2, 1);
    let paths = [directory.path().join("one"), directory.path().join("other")];
    fs::write(&paths[0], lines(&one.events)).unwrap();
    fs::write(&paths[1], lines(&other.events)).unwrap();
    let expected = [
        &one.events[0],
        &other.events[0],
        &one.events[1],
        &other.events[1],
    ]
    .map(Event::clone);
    // At 2 ms `q` begins and `p` ends: they overlap, whatever the order of the files.
    assert_eq!(read(&paths), expected);
    let reversed = [paths[1].clone(), paths[0].clone()];
    assert_eq!(read(&reversed), expected);
}

#[test]
fn the_examples_of_the_format_are_of_the_format() {
    let readme = include_str!("../../README.md");
    let examples: Vec<&str> = readme
        .lines()
        .filter(|line| line.starts_with("{\"at\""))
        .collect();
    assert_eq!(examples.len(), 2);
    for example in examples {
        let event: Event = serde_json::from_str(example).unwrap();
        assert_eq!(event.by, "p0");
    }
    let note: Event =
        serde_json::from_str("{\"at\":1,\"by\":\"h\",\"what\":{\"note\":\"load_ends\"}}").unwrap();
    assert_eq!(note.what, What::Note(Note::LoadEnds));
}
