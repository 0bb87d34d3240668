//! The `kmodlab` command.

fn main() -> std::process::ExitCode {
    kmodlab::cli::main()
}
