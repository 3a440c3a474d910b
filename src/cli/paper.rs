//! `walhook completions`, `walhook man`: what a package of walhook has beside the binary, made of the commands themselves.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

use super::print;

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The directory they go to, which is made where it is missing
    directory: PathBuf,
}

/// To standard output.
pub(super) fn completions(args: &CompletionsArgs, mut command: Command) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "walhook", &mut script);
    // Who reads it no longer has what they wanted.
    print::bytes(&script);
    ExitCode::SUCCESS
}

/// `walhook.1`, `walhook-webhooks-list.1`, …
pub(super) fn man(args: &ManArgs, command: Command) -> ExitCode {
    let directory = &args.directory;
    let made = std::fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(command, directory));
    match made {
        Ok(()) => {
            print::line(&format!("the pages are in {}", directory.display()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            print::error(&format!("cannot write the pages to {}: {error}", directory.display()));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, ValueEnum as _};

    use super::super::Cli;
    use super::*;

    /// Every command that is shown, as it is typed: `webhooks list`.
    fn commands() -> Vec<(String, Command)> {
        let mut root = Cli::command();
        root.build();
        let mut open: Vec<(String, Command)> = vec![(String::new(), root)];
        let mut found = Vec::new();
        while let Some((name, command)) = open.pop() {
            let shown =
                command.get_subcommands().filter(|one| !one.is_hide_set() && one.get_name() != "help");
            open.extend(
                shown.map(|one| (format!("{name} {}", one.get_name()).trim().to_owned(), one.clone())),
            );
            found.push((name, command));
        }
        found
    }

    #[test]
    fn every_command_has_an_example_that_names_it_and_lists_are_for_programs_too() {
        for (name, command) in commands().into_iter().filter(|(name, _)| !name.is_empty()) {
            let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let group = command.has_subcommands();
            assert!(example.contains(&format!("walhook {name}")) || group, "{name}: {example}");
            assert!(!example.is_empty(), "{name} has no example");
            assert!(command.get_about().is_some_and(|about| !about.to_string().is_empty()), "{name}");
            let last = name.rsplit(' ').next().unwrap();
            if ["list", "get", "audit", "status", "stats", "check"].contains(&last) {
                assert!(command.get_arguments().any(|one| one.get_id() == "json"), "{name} has no --json");
            }
        }
    }

    #[test]
    fn every_command_has_a_page_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(
            man(&ManArgs { directory: directory.path().join("man1") }, Cli::command()),
            ExitCode::SUCCESS
        );
        let mut pages: Vec<String> = std::fs::read_dir(directory.path().join("man1"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        pages.sort();
        let all = commands();
        let page_of = |name: &str| format!("{}.1", format!("walhook {name}").trim().replace(' ', "-"));
        let mut expect: Vec<String> = all.iter().map(|(name, _)| page_of(name)).collect();
        expect.sort();
        assert_eq!(pages, expect);
        for (name, command) in all {
            let page = std::fs::read_to_string(directory.path().join("man1").join(page_of(&name))).unwrap();
            assert!(page.contains(".SH SYNOPSIS") && page.contains(".SH NAME"), "{name}");
            let shown = |one: &&clap::Arg| !one.is_hide_set() && one.get_long().is_some();
            for option in command.get_arguments().filter(shown) {
                let long = option.get_long().unwrap().replace('-', "\\-");
                assert!(page.contains(&format!("\\-\\-{long}")), "{name}: --{long} is not in its page");
            }
        }
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(man(&ManArgs { directory: file.join("below") }, Cli::command()), ExitCode::FAILURE);
    }

    fn script(shell: Shell) -> String {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "walhook", &mut script);
        String::from_utf8(script).unwrap()
    }

    #[test]
    fn every_shell_completes_every_command() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for (name, _) in commands() {
                for word in name.split(' ') {
                    assert!(script.contains(word), "{shell}: nothing about {name}");
                }
            }
        }
    }

    #[test]
    fn bash_reads_the_script_and_completes_the_names() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("walhook.bash");
        std::fs::write(&path, script(Shell::Bash)).unwrap();
        let bash = |arguments: &[&str]| {
            let output = std::process::Command::new("bash").args(arguments).arg(&path).output().unwrap();
            let told = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success() && told.is_empty(), "{told}");
            String::from_utf8(output.stdout).unwrap()
        };
        bash(&["-n"]);
        let ask = "source \"$0\"; COMP_WORDS=(walhook webhooks ''); COMP_CWORD=2; \
                   _walhook walhook '' webhooks; echo \"${COMPREPLY[@]}\"";
        let told = bash(&["-c", ask]);
        let offered: Vec<&str> = told.split_whitespace().collect();
        let of_webhooks = commands();
        let of_webhooks = of_webhooks.iter().filter_map(|(name, _)| name.strip_prefix("webhooks "));
        for name in of_webhooks {
            assert!(offered.contains(&name), "{name} is not offered: {told}");
        }
    }
}
