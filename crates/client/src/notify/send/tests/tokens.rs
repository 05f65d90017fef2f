//! Outdated tokens: a query, then the request again with what it brought, and pauses that grow.

use super::*;

#[test]
fn an_outdated_token_is_replaced_by_a_query() {
    let mut lab = Lab::new(&[row(1, 11, 1)]);
    let first = lab.asked_one();
    lab.accept(&first.answer(false, WRONG_TOKEN));
    lab.assert_query();
    lab.now += seconds(3);
    lab.sending.learned(&[row(1, 11, 2)], &[], fill(7));
    let second = lab.asked_one();
    assert_eq!(second.request.requests[0].access_token, AccessToken::from_random([2; 16]).as_str());
    assert_ne!((first.asker, first.raw), (second.asker, second.raw.clone()));
    lab.accept(&second.answer(true, 0));
    assert_eq!(lab.outcomes(), [Ok(key(11).public())]);
    assert_eq!(lab.sending.reports()[0].failed, [(key(11).public(), Failure::WrongToken)]);
}

#[test]
fn a_query_that_could_not_be_made_is_made_later() {
    let mut lab = Lab::new(&[row(1, 11, 1)]);
    let first = lab.asked_one();
    lab.accept(&first.answer(false, WRONG_TOKEN));
    for _ in 0..20 {
        lab.assert_query();
        lab.sending.not_asked(lab.now);
        lab.wait(seconds(3));
    }
    lab.assert_query();
    lab.sending.learned(&[row(1, 11, 2)], &[], fill(7));
    let second = lab.asked_one();
    assert_eq!(second.request.requests[0].access_token, AccessToken::from_random([2; 16]).as_str());
}

#[test]
fn the_pauses_grow_and_end() {
    let known = [row(1, 11, 1)];
    let mut lab = Lab::new(&known);
    for pause in [0, 4, 16, 48, 128] {
        let asked = lab.asked_one();
        lab.accept(&asked.answer(false, WRONG_TOKEN));
        if pause > 0 {
            lab.wait(seconds(pause));
        }
        lab.assert_query();
        lab.sending.learned(&known, &[], fill(7));
    }
    let sixth = lab.asked_one();
    lab.accept(&sixth.answer(false, WRONG_TOKEN));
    assert_eq!(lab.outcomes(), [Err(Failure::WrongToken)]);
    assert_eq!(lab.sending.reports()[0].failed.len(), 6, "one request and five more");
}

#[test]
fn what_a_server_still_refuses_after_its_answer_is_not_tried_again() {
    let known = [row(1, 11, 1)];
    let mut lab = Lab::new(&known);
    let first = lab.asked_one();
    lab.accept(&first.answer(false, WRONG_TOKEN));
    lab.assert_query();
    // Somebody else has answered only: what the server would say is not known.
    let same = Shown { infos: vec![known[0].info.clone()], ..Shown::default() };
    lab.sending.learned(&known, &[(key(12).public(), same.clone())], fill(7));
    let second = lab.asked_one();
    lab.accept(&second.answer(false, WRONG_TOKEN));
    lab.wait(seconds(4));
    lab.assert_query();
    lab.sending.learned(&known, &[(key(11).public(), same)], fill(7));
    assert_eq!(lab.outcomes(), [Err(Failure::WrongToken)]);
    assert_eq!(lab.sending.reports()[0].failed.len(), 2);
}

#[test]
fn what_is_for_others_by_now_is_not_tried_again() {
    let known = [row(1, 11, 1)];
    let mut lab = Lab::new(&known);
    let first = lab.asked_one();
    lab.accept(&first.answer(false, WRONG_TOKEN));
    lab.assert_query();
    let for_others = Shown { not_allowed: vec![installation(1)], ..Shown::default() };
    lab.sending.learned(&known, &[(key(11).public(), for_others)], fill(7));
    assert_eq!(lab.outcomes(), [Err(Failure::WrongToken)]);
}

#[test]
fn what_an_answer_leaves_out_is_tried_again() {
    let known = [row(1, 11, 1), row(2, 11, 2)];
    let mut lab = Lab::new(&known);
    let first = lab.asked_one();
    lab.accept(&first.answer(false, WRONG_TOKEN));
    lab.assert_query();
    // It shows the second device only: there was no room for the first.
    let short = Shown { infos: vec![known[1].info.clone()], ..Shown::default() };
    lab.sending.learned(&known, &[(key(11).public(), short)], fill(7));
    let second = lab.asked_one();
    assert_eq!(second.installations(), BTreeSet::from([installation(1)]));
    lab.accept(&second.answer(true, 0));
    assert_eq!(lab.outcomes(), [Ok(key(11).public()), Err(Failure::WrongToken)]);
}

#[test]
fn whoever_waits_is_told_what_is_tried_and_what_servers_say() {
    let mut lab = Lab::new(&[row(1, 11, 1)]);
    let (server, installation) = (key(11).public(), installation(1));
    let asked_for =
        |is_repeated| SendEvent::Asked { server, installations: vec![installation.clone()], is_repeated };
    let failed =
        |why, query_in| SendEvent::Failed { server, installation: installation.clone(), why, query_in };
    let first = lab.asked_one();
    assert_eq!(lab.sending.take_events(), [asked_for(false)]);
    lab.accept(&first.answer(false, WRONG_TOKEN));
    assert_eq!(lab.sending.take_events(), [failed(Failure::WrongToken, Some(Duration::ZERO))]);
    lab.assert_query();
    assert_eq!(lab.sending.take_events(), [SendEvent::Queried]);
    lab.sending.learned(&[row(1, 11, 2)], &[], fill(7));
    lab.asked_one();
    lab.wait(seconds(3));
    lab.asked_one();
    assert_eq!(lab.sending.take_events(), [asked_for(false), asked_for(true)]);
    lab.wait(seconds(3));
    assert_eq!(lab.outcomes(), [Err(Failure::NoAnswer)]);
    assert_eq!(lab.sending.take_events(), [failed(Failure::NoAnswer, None)]);
}

#[test]
fn a_token_that_was_refused_is_shown_again_only_when_there_is_no_other() {
    for seed in 0..16 {
        let mut lab = Lab::seeded(&[row(1, 11, 1)], SendSettings::default(), seed);
        let asked = lab.asked_one();
        lab.accept(&asked.answer(false, WRONG_TOKEN));
        lab.assert_query();
        lab.sending.learned(&[row(1, 11, 1), row(1, 12, 1)], &[], fill(seed));
        let next = lab.asked_one();
        assert_eq!(next.server.public(), key(12).public(), "seed {seed}");
    }
}

#[test]
fn a_server_that_failed_otherwise_is_not_asked_again() {
    let known = [row(1, 11, 1), row(1, 12, 1)];
    let mut lab = Lab::new(&known);
    let first = lab.asked_one();
    lab.accept(&first.answer(false, NOT_REGISTERED));
    let second = lab.asked_one();
    lab.accept(&second.answer(false, WRONG_TOKEN));
    lab.assert_query();
    let first_only = known.iter().filter(|row| row.info.server == first.server.public());
    lab.sending.learned(&first_only.cloned().collect::<Vec<_>>(), &[], fill(1));
    assert_eq!(lab.outcomes(), [Err(Failure::WrongToken)]);
}

#[test]
fn others_go_on_while_one_waits_and_one_query_serves_all() {
    let known = [row(1, 11, 1), row(2, 12, 2), row(3, 13, 3)];
    let mut lab = Lab::new(&known);
    let asked = lab.asked();
    assert_eq!(asked.len(), 3);
    let to = |server: u8| asked.iter().find(|asked| asked.server.public() == key(server).public()).unwrap();
    lab.accept(&to(11).answer(false, WRONG_TOKEN));
    lab.accept(&to(12).answer(false, WRONG_TOKEN));
    lab.assert_query();
    // While the query is under way.
    lab.now += seconds(2);
    lab.accept(&to(13).answer(true, 0));
    lab.sending.learned(&[row(1, 11, 4), row(2, 12, 5), row(3, 13, 3)], &[], fill(1));
    let again = lab.asked();
    let devices: BTreeSet<_> = again.iter().flat_map(Asked::installations).collect();
    assert_eq!(devices, BTreeSet::from([1, 2].map(installation)), "both after one query, the third no more");
    for asked in again {
        lab.accept(&asked.answer(true, 0));
    }
    assert!(lab.outcomes().iter().all(Result::is_ok));
}

#[test]
fn a_query_that_brings_nothing_ends_it() {
    let mut lab = Lab::new(&[row(1, 11, 1)]);
    let asked = lab.asked_one();
    lab.accept(&asked.answer(false, WRONG_TOKEN));
    lab.assert_query();
    lab.sending.learned(&[], &[], fill(1));
    assert_eq!(lab.outcomes(), [Err(Failure::WrongToken)]);
}
