//! What is left where something does not work, or is interrupted.

use std::path::PathBuf;

use super::*;
use crate::install::install;
use crate::machine::{CONFIG, Crash, DROP_IN, Silent, machines, programs};
use crate::uninstall::uninstall;
use crate::{Found, Offline};

#[test]
fn what_was_installed_is_removed_without_a_trace() {
    for (name, machine) in machines() {
        let before = machine.files();
        let done = machine.install("1.0.0", &mut Silent).expect(name);
        assert!(done.configured, "{name}");
        let file = match name {
            "imports" => DROP_IN,
            _ => CONFIG,
        };
        assert_eq!(done.file, Path::new(file), "{name}");
        assert_eq!(machine.restarts.get(), 1, "{name}");
        let state = status(&machine.place(), &machine).expect(name);
        assert_eq!(state.shim.as_deref(), Some(done.shim.as_path()));
        assert!(state.record.is_some_and(|record| record.proven), "{name}");

        let again = machine.install("1.0.0", &mut Silent).expect(name);
        assert!(!again.configured, "{name}");
        let newer = machine.install("2.0.0", &mut Silent).expect(name);
        assert!(!newer.configured, "{name}");
        assert_eq!(machine.restarts.get(), 1, "{name}");

        assert!(machine.uninstall(&mut Silent).expect(name));
        assert_eq!(machine.files(), before, "{name}");
        assert_eq!(machine.restarts.get(), 2, "{name}");
        assert!(!machine.uninstall(&mut Silent).expect(name));
        assert_eq!(machine.files(), before, "{name}");
    }
}

#[test]
fn whatever_it_is_interrupted_before_it_goes_on_or_back() {
    for (name, _) in machines() {
        let machine = || {
            let mut all = machines();
            all.remove(
                all.iter()
                    .position(|(other, _)| *other == name)
                    .expect("machine"),
            )
            .1
        };
        let mut at = 0;
        loop {
            let (forth, back) = (machine(), machine());
            let before = back.files();
            let mut crash = Crash(at, None);
            let ended = forth.install("1.0.0", &mut crash);
            let Some(step) = crash.1 else {
                ended.expect(name);
                break;
            };
            assert!(
                matches!(ended, Err(InstallError::Interrupted(_))),
                "{name} {step:?}"
            );
            forth.install("1.0.0", &mut Silent).expect(name);
            let state = status(&forth.place(), &forth).expect(name);
            assert!(
                state.record.is_some_and(|record| record.proven),
                "{name} {step:?}"
            );
            let _ = back.install("1.0.0", &mut Crash(at, None));
            back.uninstall(&mut Silent).expect(name);
            assert!(back.files() == before, "{name} {step:?}");
            at += 1;
        }
        assert!(at >= 8, "{name}: {at} steps");
        // And the way back, interrupted.
        for at in 0.. {
            let machine = machine();
            let before = machine.files();
            machine.install("1.0.0", &mut Silent).expect(name);
            let mut crash = Crash(at, None);
            let _ = machine.uninstall(&mut crash);
            if crash.1.is_none() {
                break;
            }
            machine.uninstall(&mut Silent).expect(name);
            assert!(machine.files() == before, "{name} {:?}", crash.1);
        }
    }
}

#[test]
fn what_does_not_work_is_rolled_back() {
    for step in [Step::Restart, Step::Ready, Step::Prove] {
        for (name, mut machine) in machines() {
            machine.fails = Some(step);
            let before = machine.files();
            let error = machine.install("1.0.0", &mut Silent).expect_err(name);
            let InstallError::RolledBack { restored, why, .. } = &error else {
                panic!("{name}: {error}");
            };
            assert_eq!(restored, &Ok(()), "{name}");
            assert!(why.contains(&format!("{step:?} fails")), "{why}");
            assert_eq!(machine.files(), before, "{name} {step:?}");
            assert!(!machine.uninstall(&mut Silent).expect(name));
        }
    }
}

#[test]
fn an_upgrade_that_does_not_work_leaves_the_version_before() {
    for (name, mut machine) in machines() {
        machine.install("1.0.0", &mut Silent).expect(name);
        let before = machine.files();
        machine.fails = Some(Step::Prove);
        let error = machine.install("2.0.0", &mut Silent).expect_err(name);
        assert!(
            matches!(&error, InstallError::Kept { version, .. } if version == "1.0.0"),
            "{name}: {error}"
        );
        assert_eq!(machine.files(), before, "{name}");
        assert_eq!(machine.restarts.get(), 1, "{name}");
        machine.fails = None;
        machine.install("2.0.0", &mut Silent).expect(name);
        let state = status(&machine.place(), &machine).expect(name);
        assert_eq!(state.record.expect("a record").version, "2.0.0");
    }
}

#[test]
fn what_was_interrupted_and_does_not_work_then_is_rolled_back() {
    for at in 0..8 {
        for (name, mut machine) in machines() {
            let before = machine.files();
            let interrupted = machine.install("1.0.0", &mut Crash(at, None));
            assert!(matches!(
                interrupted,
                Err(InstallError::Interrupted(_)) | Ok(_)
            ));
            let Err(InstallError::Interrupted(step)) = interrupted else {
                continue;
            };
            machine.fails = Some(Step::Prove);
            let again = machine.install("1.0.0", &mut Silent);
            // Before the record is the last step at which it was not yet proven.
            match step == Step::Tidy.to_string() {
                true => assert!(again.is_err(), "{name} before {step}"),
                false => {
                    assert!(
                        matches!(
                            again,
                            Err(InstallError::RolledBack {
                                restored: Ok(()),
                                ..
                            })
                        ),
                        "{name} before {step}: {again:?}"
                    );
                    assert_eq!(machine.files(), before, "{name} before {step}");
                }
            }
        }
    }
}

#[test]
fn an_upgrade_interrupted_and_not_working_then_leaves_the_version_before() {
    for at in 0..8 {
        let (name, mut machine) = machines().remove(1);
        machine.install("1.0.0", &mut Silent).expect(name);
        let before = machine.files();
        let interrupted = machine.install("2.0.0", &mut Crash(at, None));
        let Err(InstallError::Interrupted(step)) = interrupted else {
            continue;
        };
        if step == Step::Tidy.to_string() {
            continue;
        }
        machine.fails = Some(Step::Prove);
        let again = machine.install("2.0.0", &mut Silent);
        assert!(
            matches!(&again, Err(InstallError::Kept { version, .. }) if version == "1.0.0"),
            "before {step}: {again:?}"
        );
        assert_eq!(machine.files(), before, "before {step}");
    }
}

#[test]
fn what_is_proven_already_and_fails_stays_and_restarts_nothing() {
    let (name, mut machine) = machines().remove(1);
    machine.install("1.0.0", &mut Silent).expect(name);
    let before = machine.files();
    machine.fails = Some(Step::Prove);
    machine
        .install("1.0.0", &mut Silent)
        .expect_err("no container runs");
    assert_eq!(machine.files(), before);
    machine.fails = None;
    machine.install("1.0.0", &mut Silent).expect("again");
    assert_eq!(machine.restarts.get(), 1);
}

#[test]
fn programs_do_not_move_from_under_their_pods() {
    let (name, machine) = machines().remove(1);
    machine.install("1.0.0", &mut Silent).expect(name);
    let before = machine.files();
    let dir = programs("2.0.0");
    let found = Found::of(dir.path()).expect("programs");
    let place = Place {
        programs: Some("/srv/wisp".into()),
        ..machine.place()
    };
    let error = install(&place, &found, &machine, &mut Silent)
        .expect_err("elsewhere")
        .to_string();
    assert!(
        error.contains("/opt/wisp") && error.contains("/srv/wisp"),
        "{error}"
    );
    assert_eq!(machine.files(), before);
}

#[test]
fn without_containerd_what_was_changed_comes_back_to_the_byte() {
    for at in 0..9 {
        for (name, machine) in machines() {
            let before = machine.files();
            let _ = machine.install("1.0.0", &mut Crash(at, None));
            let place = Place {
                config: PathBuf::new(),
                ..machine.place()
            };
            uninstall(&place, &Offline, &mut Silent).expect(name);
            assert_eq!(machine.files(), before, "{name} at {at}");
        }
    }
}

#[test]
fn an_upgrade_interrupted_anywhere_goes_on_or_is_removed() {
    for at in 0.. {
        let (name, machine) = machines().remove(1);
        let before = machine.files();
        machine.install("1.0.0", &mut Silent).expect(name);
        let mut crash = Crash(at, None);
        let _ = machine.install("2.0.0", &mut crash);
        if crash.1.is_none() {
            assert!(at >= 6, "{at} steps");
            break;
        }
        machine.install("2.0.0", &mut Silent).expect(name);
        let state = status(&machine.place(), &machine).expect(name);
        assert!(
            state
                .record
                .is_some_and(|r| r.proven && r.version == "2.0.0")
        );
        machine.uninstall(&mut Silent).expect(name);
        assert_eq!(machine.files(), before, "{:?}", crash.1);
    }
}
