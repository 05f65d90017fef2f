//! kill -9 of an archive under eight writers, again and again on the same directory; and between kills everything that can
//! be derived is damaged or taken away.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use poste_rpc::archive::v1::{Direction, PruneRequest, QueryRequest};
use poste_wire::{Bloom, Hash, Topic};
use rand::rngs::StdRng;
use rand::seq::{IndexedMutRandom, IndexedRandom, SliceRandom};
use rand::{Rng, RngExt, SeedableRng};
use tokio::time::sleep;

use super::{SMALL_SEGMENTS, eight_writers, recovered, set};
use crate::archive::{Archive, Program};
use crate::audit::{Client, Tally, audit, bloom, place, question, topics, walk};
use crate::load::{Ledger, Load};

/// Acknowledged between two kills, at least.
const ACKNOWLEDGED: u64 = 1000;
/// Every so many kills what is derived is damaged, and every so many the older half is retired.
const SPOILED_EVERY: u32 = 3;
const RETIRED_EVERY: u32 = 5;
/// What a writer sends again is among the last of so many: those in flight, and some that were acknowledged.
const SENT_AGAIN: u64 = 5000;

/// Kills an archive that many times. Fails as soon as something is lost, doubled, or answered otherwise.
pub async fn kill(seed: u64, kills: u32) -> Result<Tally> {
    let mut random = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir()?;
    let mut archive = Archive::new(Program::Poste, &directory.path().join("archive"), &SMALL_SEGMENTS);
    let ledger = Ledger::new(set(seed)?);
    archive.start()?;
    let mut tally = Tally::default();
    for kill in 1..=kills {
        let load = Load::start(&ledger, &archive.client()?, &eight_writers(&mut random, 1..=60));
        ledger.grow_by(ACKNOWLEDGED + random.random_range(0..2 * ACKNOWLEDGED)).await?;
        if kill % RETIRED_EVERY == 0 {
            retire_older_part(&archive, &ledger, &mut random).await?;
        }
        sleep(Duration::from_micros(random.random_range(0..50_000))).await;
        archive.kill()?;
        load.lost().await?;
        if kill.is_multiple_of(2) {
            // In the middle of its recovery, and that interrupted one is what the next start finds.
            archive.start_and_kill(Duration::from_micros(random.random_range(0..100_000)))?;
        }
        archive.start()?;
        let mut what = "killed".to_owned();
        if kill % SPOILED_EVERY == 0 {
            what = format!("killed, {}", spoiled(&mut archive, &ledger, &mut random).await?);
        }
        let mut client = archive.client()?;
        let stats = recovered(&mut client).await?;
        ensure!(stats.quarantined == 0, "kill -9 damaged {} places", stats.quarantined);
        tally = audit(&mut client, &ledger).await?;
        println!("{kill} of {kills}: {what}: {tally}");
        tally.ensure_whole()?;
    }
    archive.stop()?;
    archive.start()?;
    let mut client = archive.client()?;
    recovered(&mut client).await?;
    ensure!(audit(&mut client, &ledger).await? == tally, "a clean stop and a start changed the answers");
    archive.stop()?;
    Ok(tally)
}

/// Retires the older part of what was sent, while writers are at work; only what no writer will send again.
async fn retire_older_part(archive: &Archive, ledger: &Ledger, random: &mut StdRng) -> Result<()> {
    let part =
        (ledger.given() * random.random_range(30..70) / 100).min(ledger.given().saturating_sub(SENT_AGAIN));
    let seconds = i64::from(ledger.set.begin) + (part as f64 / ledger.set.per_second) as i64;
    let request =
        PruneRequest { space: "waku1".to_owned(), before_ns: seconds * 1_000_000_000, dry_run: false };
    archive.admin()?.prune(request).await?;
    Ok(())
}

/// Damages or takes away what is derived while the archive is stopped; the answers must stay what they were. Returns what
/// was done.
async fn spoiled(archive: &mut Archive, ledger: &Ledger, random: &mut StdRng) -> Result<String> {
    let mut client = archive.client()?;
    recovered(&mut client).await?;
    let before = Answers::ask(&mut client, ledger).await?;
    if random.random() {
        archive.stop()?;
    } else {
        archive.kill()?;
    }
    let what = spoil(archive.directory(), random)?;
    archive.start()?;
    let mut client = archive.client()?;
    recovered(&mut client).await?;
    let after = Answers::ask(&mut client, ledger).await?;
    ensure!(before == after, "other answers: {what}");
    Ok(what)
}

/// Does one kind of harm to files that can be derived: index files and the catalogue.
fn spoil(directory: &Path, random: &mut StdRng) -> Result<String> {
    let catalogue = random.random::<bool>();
    let mut files = Vec::new();
    derived_files(directory, catalogue, &mut files)?;
    let kind = if catalogue { "files of the catalogue" } else { "index files" };
    files.shuffle(random);
    let some = random.random_range(1..=files.len().max(1)).min(files.len());
    let harm = *["deleted", "cut short", "overwritten with noise", "one byte changed"]
        .choose(random)
        .context("a harm")?;
    for file in &files[..some] {
        let mut bytes = fs::read(file)?;
        match harm {
            "deleted" => {
                fs::remove_file(file)?;
                continue;
            }
            "cut short" => bytes.truncate(random.random_range(0..=bytes.len())),
            "overwritten with noise" => random.fill_bytes(&mut bytes),
            _ => {
                if let Some(byte) = bytes.choose_mut(random) {
                    *byte ^= 1 << random.random_range(0..8);
                }
            }
        }
        fs::write(file, bytes)?;
    }
    Ok(format!("{some} {kind} {harm}"))
}

/// The files of the catalogue, or the index files.
fn derived_files(directory: &Path, catalogue: bool, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        match (name.starts_with("catalogue"), entry.file_type()?.is_dir()) {
            (true, true) if catalogue => all_files(&path, files)?,
            (true, false) if catalogue => files.push(path),
            (false, false) if !catalogue && name.ends_with(".index") => files.push(path),
            _ => {}
        }
    }
    Ok(())
}

fn all_files(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            all_files(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// The answers to some questions, each a list of (time, id) with the seq.
#[derive(Debug, PartialEq, Eq)]
struct Answers(Vec<Vec<((i64, Hash), u64)>>);

impl Answers {
    async fn ask(client: &mut Client, ledger: &Ledger) -> Result<Self> {
        let of_ranks = |ranks: std::ops::Range<u32>| -> Vec<Topic> {
            ranks.map(|rank| ledger.set.topics.topic(rank)).collect()
        };
        let filters = [
            None,
            Some(topics(&of_ranks(0..1))),
            Some(topics(&of_ranks(20..60))),
            Some(bloom(&Bloom::of_topics(of_ranks(50..53)))),
            Some(bloom(&Bloom::of_topics(of_ranks(0..150)))),
        ];
        let mut answers = Vec::new();
        for filter in filters {
            for direction in [Direction::Ascending, Direction::Descending] {
                let question =
                    QueryRequest { filter: filter.clone(), direction: direction.into(), ..question() };
                let walked = walk(client, question, 777).await?;
                ensure!(walked.repeated == 0, "{} records came twice", walked.repeated);
                let line = |record: &poste_rpc::archive::v1::Record| {
                    Ok((place(record.position.as_ref())?, record.seq))
                };
                answers.push(walked.records.iter().map(line).collect::<Result<Vec<_>>>()?);
            }
        }
        Ok(Self(answers))
    }
}
