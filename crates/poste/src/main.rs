//! The `poste` program: reads its arguments, runs a command of the library, turns the outcome into an exit code.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    poste::main(std::env::args_os())
}
