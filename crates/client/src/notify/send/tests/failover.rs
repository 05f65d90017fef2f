//! The next server of a device: after silence and after answers that are no success.

use super::*;

#[test]
fn a_silent_server_is_followed_by_the_next_with_the_same_message() {
    let mut lab = Lab::new(&[row(1, 11, 1), row(1, 12, 1)]);
    let first = lab.asked_one();
    lab.wait(seconds(3));
    let second = lab.asked_one();
    assert_ne!(first.server.public(), second.server.public());
    assert_eq!(first.request.message_id, second.request.message_id);
    assert_ne!(first.asker, second.asker, "a key of its own");
    lab.accept(&second.answer(true, 0));
    assert_eq!(lab.outcomes(), [Ok(second.server.public())]);
    let report = &lab.sending.reports()[0];
    assert_eq!(report.failed, [(first.server.public(), Failure::NoAnswer)]);
}

#[test]
fn the_last_server_gets_the_very_same_message_once_more() {
    let mut lab = Lab::new(&[row(1, 11, 1), row(2, 11, 2)]);
    let first = lab.asked_one();
    lab.wait(seconds(3));
    let again = lab.asked_one();
    assert_eq!(first.raw, again.raw, "byte for byte, so that no server notifies twice");
    lab.wait(seconds(3));
    assert_eq!(lab.outcomes(), [Err(Failure::NoAnswer); 2]);
}

/// Nobody knows whether the first server got the request. If it did not, it must not ring after the second one.
#[test]
fn who_has_moved_on_is_not_in_what_is_repeated() {
    let known = [row(1, 11, 1), row(2, 11, 2), row(2, 12, 2)];
    let mut joint = 0;
    // Whichever server device 2 begins with.
    for seed in 0..16 {
        let mut lab = Lab::seeded(&known, SendSettings::default(), seed);
        if lab.asked().len() > 1 {
            continue;
        }
        joint += 1;
        lab.wait(seconds(3));
        let asked = lab.asked();
        let devices = |server: u8| {
            let theirs = asked.iter().find(|asked| asked.server.public() == key(server).public()).unwrap();
            theirs.installations()
        };
        assert_eq!(asked.len(), 2, "seed {seed}");
        assert_eq!(devices(11), BTreeSet::from([installation(1)]), "seed {seed}");
        assert_eq!(devices(12), BTreeSet::from([installation(2)]), "seed {seed}");
        lab.wait(seconds(3));
        let again = lab.asked_one();
        assert_eq!(again.server.public(), key(12).public(), "the first server had its second request");
        lab.accept(&again.answer(true, 0));
        assert_eq!(lab.outcomes().iter().filter(|outcome| outcome.is_ok()).count(), 1, "seed {seed}");
    }
    assert!(joint > 0);
}

#[test]
fn the_time_to_answer_begins_when_everything_is_published() {
    let mut lab = Lab::new(&[row(1, 11, 1), row(1, 12, 1)]);
    let asked = lab.asked_one();
    lab.now += seconds(20);
    lab.sending.published(lab.now);
    assert!(matches!(lab.step(), Step::Wait(until) if until == lab.now + seconds(3)));
    lab.accept(&asked.answer(true, 0));
    assert_eq!(lab.outcomes(), [Ok(asked.server.public())]);
}

#[test]
fn a_late_answer_counts_and_ends_the_search() {
    let mut lab = Lab::new(&[row(1, 11, 1), row(1, 12, 1)]);
    let first = lab.asked_one();
    lab.wait(seconds(3));
    let second = lab.asked_one();
    lab.accept(&first.answer(true, 0));
    assert_eq!(lab.outcomes(), [Ok(first.server.public())]);
    assert_eq!(lab.sending.reports()[0].failed, []);
    lab.accept(&second.answer(false, INTERNAL_ERROR));
    assert_eq!(lab.outcomes(), [Ok(first.server.public())], "once notified it stays so");
}

#[test]
fn a_late_refusal_is_reported_but_does_not_disturb() {
    let mut lab = Lab::new(&[row(1, 11, 1), row(1, 12, 1)]);
    let first = lab.asked_one();
    lab.wait(seconds(3));
    let second = lab.asked_one();
    lab.accept(&first.answer(false, NOT_REGISTERED));
    lab.wait(seconds(3));
    assert_eq!(lab.asked_one().server.public(), second.server.public(), "once more, as it is the last");
    lab.accept(&second.answer(true, 0));
    assert_eq!(lab.outcomes(), [Ok(second.server.public())]);
    assert_eq!(lab.sending.reports()[0].failed, [(first.server.public(), Failure::NotRegistered)]);
}

#[test]
fn each_refusal_but_an_outdated_token_leads_to_the_next_server_at_once() {
    for (error, failure) in [
        (NOT_REGISTERED, Failure::NotRegistered),
        (INTERNAL_ERROR, Failure::InternalError),
        (0, Failure::Unknown(0)),
        (77, Failure::Unknown(77)),
    ] {
        let mut lab = Lab::new(&[row(1, 11, 1), row(1, 12, 1)]);
        let first = lab.asked_one();
        lab.accept(&first.answer(false, error));
        let second = lab.asked_one();
        assert_ne!(first.server.public(), second.server.public());
        lab.accept(&second.answer(false, error));
        assert_eq!(lab.outcomes(), [Err(failure)]);
        assert_eq!(lab.sending.reports()[0].failed.len(), 2);
    }
}

#[test]
fn a_device_that_the_answer_leaves_out_goes_on_alone() {
    let known = [row(1, 11, 1), row(2, 11, 2), row(2, 12, 2)];
    // Whichever server device 2 begins with.
    for seed in 0..8 {
        let mut lab = Lab::seeded(&known, SendSettings::default(), seed);
        for asked in lab.asked() {
            lab.accept(&asked.answer_each(|entry| {
                (entry.installation_id == installation(1).as_str()).then_some((true, 0))
            }));
        }
        let next = lab.asked_one();
        assert_eq!(next.installations(), BTreeSet::from([installation(2)]), "seed {seed}");
        lab.accept(&next.answer(true, 0));
        assert!(lab.outcomes().iter().all(Result::is_ok));
    }
}

/// Each of them may have notified, so that a device may ring as often.
#[test]
fn a_device_is_asked_for_at_so_many_silent_servers_and_no_more() {
    let known: Vec<_> = (11..31).map(|server| row(1, server, 1)).collect();
    let mut lab = Lab::new(&known);
    let mut servers = BTreeSet::new();
    for _ in 0..3 {
        servers.insert(lab.asked_one().server.public());
        lab.wait(seconds(3));
    }
    assert_eq!(servers.len(), 3);
    let again = lab.asked_one();
    assert!(servers.contains(&again.server.public()));
    lab.wait(seconds(3));
    assert_eq!(lab.outcomes(), [Err(Failure::NoAnswer)]);

    // Servers that say that they have not notified do not count.
    let mut lab = Lab::new(&known);
    for _ in 0..20 {
        let asked = lab.asked_one();
        lab.accept(&asked.answer(false, NOT_REGISTERED));
    }
    assert_eq!(lab.outcomes(), [Err(Failure::NotRegistered)]);
}

#[test]
fn who_gives_up_says_so() {
    let mut lab = Lab::new(&[row(1, 11, 1), row(2, 12, 1)]);
    for asked in lab.asked() {
        if asked.server.public() == key(11).public() {
            lab.accept(&asked.answer(true, 0));
        }
    }
    lab.sending.give_up();
    assert_eq!(lab.outcomes(), [Ok(key(11).public()), Err(Failure::GivenUp)]);
}
