//! `poste ctl push self-test`: a registration that rings a device of its own, step by step.

use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Command};
use poste_rpc::push::v1;
use serde_json::json;

use super::super::output::span;
use super::super::{LONG, common_args, output};
use super::admin;

/// The command.
pub(super) fn command() -> Command {
    Command::new("self-test")
        .about("Registers, queries, rings and unregisters a device of its own, over gateway and archive")
        .after_help(
            "Exit code 1 when a step fails. No phone rings: the notification ends in the server, and the provider is \
             only asked whether it is there. A step that gets no answer fails after 20 s.",
        )
        .args(common_args(LONG))
}

/// Runs it.
pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let (service, mut client) = admin(matches)?;
    let is_json = matches.get_flag("json");
    let steps = service.within(async {
        let steps = client.self_test(v1::SelfTestRequest {}).await;
        let mut coming = steps.map_err(|status| service.error(&status))?.into_inner();
        let mut steps = Vec::new();
        while let Some(step) = coming.message().await.map_err(|status| service.error(&status))? {
            if !is_json {
                output::lines([line(&step)])?;
            }
            steps.push(step);
        }
        Ok(steps)
    });
    let steps: Vec<v1::SelfTestResponse> = steps.await?;
    let has_passed = !steps.is_empty() && steps.iter().all(|step| step.outcome() == v1::StepOutcome::Passed);
    if is_json {
        let step = |step: &v1::SelfTestResponse| {
            json!({
                "step": step.step,
                "outcome": outcome(step),
                "took_ns": step.took_ns,
                "problem": step.problem,
            })
        };
        output::json(&json!({ "passed": has_passed, "steps": steps.iter().map(step).collect::<Vec<_>>() }))?;
    }
    Ok(if has_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn outcome(step: &v1::SelfTestResponse) -> &'static str {
    match step.outcome() {
        v1::StepOutcome::Passed => "passed",
        v1::StepOutcome::Failed => "failed",
        v1::StepOutcome::Skipped => "skipped",
        v1::StepOutcome::Unspecified => "unknown",
    }
}

/// Told as soon as it ends: a step may take seconds.
fn line(step: &v1::SelfTestResponse) -> String {
    let took = match step.outcome() {
        v1::StepOutcome::Skipped => String::new(),
        _ => span(Duration::from_nanos(step.took_ns)),
    };
    format!("{:<10}  {:<7}  {took:>6}  {}", step.step, outcome(step), step.problem).trim_end().to_owned()
}
