//! The same message once more: nobody is asked who has notified, and first of all those who may have.

use super::*;

/// Two devices at three servers each.
fn known() -> Vec<KnownInfo> {
    [1, 2].into_iter().flat_map(|device| [11, 12, 13].map(|server| row(device, server, 1))).collect()
}

fn again(lab: &Lab, seed: u64) -> Lab {
    let earlier: Vec<_> = lab.sending.attempts().collect();
    Lab::after(&earlier, &known(), SendSettings::default(), seed)
}

fn open(servers: &[&Asked]) -> Attempt {
    Attempt::Open(servers.iter().map(|asked| asked.server.public()).collect())
}

fn attempt(lab: &Lab) -> Attempt {
    lab.sending.attempts().next().unwrap().1
}

#[test]
fn who_was_notified_is_left_alone() {
    for seed in 0..8 {
        let one =
            |n| SendSettings { devices: Devices::These(vec![installation(n)]), ..SendSettings::default() };
        let mut lab = Lab::seeded(&known(), one(1), seed);
        let asked = lab.asked_one();
        lab.accept(&asked.answer(true, 0));
        assert!(!lab.sending.reports()[0].is_earlier);

        let mut lab = again(&lab, seed + 1);
        assert_eq!(lab.asked_one().installations(), BTreeSet::from([installation(2)]), "seed {seed}");
        lab.sending.give_up();
        assert_eq!(lab.outcomes(), [Ok(asked.server.public()), Err(Failure::GivenUp)]);
        assert_eq!(
            lab.sending.reports().iter().map(|report| report.is_earlier).collect::<Vec<_>>(),
            [true, false]
        );
    }
}

#[test]
fn who_may_have_notified_is_asked_first() {
    for seed in 0..8 {
        let mut lab = Lab::seeded(&known()[..3], SendSettings::default(), seed);
        let first = lab.asked_one();
        assert_eq!(attempt(&lab), open(&[&first]), "as soon as it may be published");
        lab.wait(seconds(3));
        let second = lab.asked_one();
        assert_eq!(attempt(&lab), open(&[&first, &second]));
        lab.accept(&second.answer(false, 0));
        let third = lab.asked_one();
        lab.accept(&third.answer(false, INTERNAL_ERROR));
        assert_eq!(attempt(&lab), open(&[&first, &second]), "the third has certainly not notified");

        let earlier: Vec<_> = lab.sending.attempts().collect();
        let mut lab = Lab::after(&earlier, &known()[..3], SendSettings::default(), seed + 1);
        for _ in 0..2 {
            let asked = lab.asked_one().server.public();
            assert_ne!(asked, third.server.public(), "seed {seed}");
            lab.wait(seconds(3));
        }
        assert_eq!(lab.asked_one().server.public(), third.server.public(), "seed {seed}");
    }
}

/// The token may have changed since the server notified, and then it says so before anything else.
#[test]
fn what_is_refused_now_may_have_been_done_before() {
    let settings = SendSettings { devices: Devices::These(vec![installation(1)]), ..SendSettings::default() };
    let earlier = [(installation(1), Attempt::Open(vec![key(12).public()]))];
    let mut lab = Lab::after(&earlier, &known(), settings, 1);
    let asked = lab.asked_one();
    assert_eq!(asked.server.public(), key(12).public());
    lab.accept(&asked.answer(false, WRONG_TOKEN));
    lab.assert_query();
    assert_eq!(attempt(&lab), open(&[&asked]));
    let new_tokens: Vec<_> = [11, 12, 13].map(|server| row(1, server, 2)).into();
    lab.sending.learned(&new_tokens, &[], fill(1));
    assert_eq!(lab.asked_one().server.public(), key(12).public());
}

#[test]
fn a_device_is_asked_for_at_no_more_silent_servers_than_before() {
    let known: Vec<_> = (11..31).map(|server| row(1, server, 1)).collect();
    let mut earlier = Vec::new();
    let mut servers = BTreeSet::new();
    for seed in 0..8 {
        let mut lab = Lab::after(&earlier, &known, SendSettings::default(), seed);
        for _ in 0..3 {
            servers.insert(lab.asked_one().server.public());
            lab.wait(seconds(3));
        }
        lab.asked_one();
        lab.wait(seconds(3));
        assert_eq!(lab.outcomes(), [Err(Failure::NoAnswer)]);
        earlier = lab.sending.attempts().collect();
    }
    assert_eq!(servers.len(), 3, "each of them may have notified");
}
