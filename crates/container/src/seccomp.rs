//! The spec's seccomp profile as BPF programs.
//!
//! libcontainer is built without libseccomp (it does not link statically), so
//! the profile is compiled and installed here, for native and Wasm containers.
//! A `seccompiler` filter has one action for what matches and one for what
//! does not; a profile has many. Each action therefore becomes a filter of its
//! own, and the kernel takes the strictest answer of all installed filters
//! (seccomp(2)).

use std::collections::BTreeMap;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall, Spec,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use syscalls::Sysno;

use crate::error::ContainerError;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Compiles `profile` into programs, in the order of installation.
///
/// # Errors
/// An action or an argument the kernel's filters cannot express, named.
pub fn compile(profile: &LinuxSeccomp) -> Result<Vec<BpfProgram>, ContainerError> {
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut groups: Vec<(SeccompAction, Rules)> = Vec::new();
    // All rules that differ from the default lift it; what they then do is the
    // business of the filters after.
    let mut lifted = Rules::new();
    for entry in profile.syscalls().iter().flatten() {
        let wanted = action(entry.action(), entry.errno_ret())?;
        if wanted == default {
            continue;
        }
        add(&mut lifted, entry)?;
        if wanted == SeccompAction::Allow {
            continue;
        }
        let index = match groups.iter().position(|(have, _)| *have == wanted) {
            Some(index) => index,
            None => {
                groups.push((wanted, Rules::new()));
                groups.len() - 1
            }
        };
        add(&mut groups[index].1, entry)?;
    }

    // The default comes last: it may deny the very calls that install a filter.
    let mut programs = Vec::new();
    for (wanted, rules) in groups {
        if !rules.is_empty() {
            programs.push(program(rules, SeccompAction::Allow, wanted)?);
        }
    }
    if default != SeccompAction::Allow {
        programs.push(program(lifted, default, SeccompAction::Allow)?);
    }
    Ok(programs)
}

/// The programs for the profile of `spec`, if it has one.
///
/// # Errors
/// See [`compile`].
pub fn of(spec: &Spec) -> Result<Vec<BpfProgram>, ContainerError> {
    let profile = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().as_ref());
    Ok(profile.map(compile).transpose()?.unwrap_or_default())
}

/// Installs the programs for this thread and all it will start. Sets
/// no_new_privs, without which an unprivileged process may not install them.
///
/// # Errors
/// The kernel's refusal.
pub fn install(programs: &[BpfProgram]) -> Result<(), ContainerError> {
    for program in programs {
        seccompiler::apply_filter(program).map_err(|e| ContainerError::Seccomp(e.to_string()))?;
    }
    Ok(())
}

fn program(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, ContainerError> {
    let bad = |e: seccompiler::BackendError| ContainerError::Seccomp(e.to_string());
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(bad)?;
    SeccompFilter::new(rules, otherwise, matched, arch)
        .map_err(bad)?
        .try_into()
        .map_err(bad)
}

fn add(rules: &mut Rules, entry: &LinuxSyscall) -> Result<(), ContainerError> {
    for name in entry.names() {
        // Profiles name system calls of every architecture; unknown ones here
        // cannot be called here.
        let Ok(number) = name.parse::<Sysno>() else {
            continue;
        };
        let number = i64::from(number.id());
        let conditions = entry
            .args()
            .iter()
            .flatten()
            .map(condition)
            .collect::<Result<Vec<_>, _>>()?;
        if conditions.is_empty() {
            // No rule at all means: always. It absorbs narrower ones.
            rules.insert(number, Vec::new());
        } else if rules.get(&number).is_none_or(|have| !have.is_empty()) {
            let rule = SeccompRule::new(conditions)
                .map_err(|e| ContainerError::Seccomp(format!("{name}: {e}")))?;
            rules.entry(number).or_default().push(rule);
        }
    }
    Ok(())
}

fn condition(arg: &LinuxSeccompArg) -> Result<SeccompCondition, ContainerError> {
    use LinuxSeccompOperator as Op;
    let (operator, value) = match arg.op() {
        Op::ScmpCmpNe => (SeccompCmpOp::Ne, arg.value()),
        Op::ScmpCmpLt => (SeccompCmpOp::Lt, arg.value()),
        Op::ScmpCmpLe => (SeccompCmpOp::Le, arg.value()),
        Op::ScmpCmpEq => (SeccompCmpOp::Eq, arg.value()),
        Op::ScmpCmpGe => (SeccompCmpOp::Ge, arg.value()),
        Op::ScmpCmpGt => (SeccompCmpOp::Gt, arg.value()),
        Op::ScmpCmpMaskedEq => (
            SeccompCmpOp::MaskedEq(arg.value()),
            arg.value_two().unwrap_or_default(),
        ),
    };
    let index = u8::try_from(arg.index())
        .map_err(|_| ContainerError::Seccomp(format!("argument index {}", arg.index())))?;
    SeccompCondition::new(index, SeccompCmpArgLen::Qword, operator, value)
        .map_err(|e| ContainerError::Seccomp(e.to_string()))
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<SeccompAction, ContainerError> {
    use LinuxSeccompAction as Act;
    // EPERM is the spec's default for actions with a number.
    let errno = errno.unwrap_or(libc::EPERM.unsigned_abs());
    Ok(match action {
        Act::ScmpActAllow => SeccompAction::Allow,
        Act::ScmpActErrno => SeccompAction::Errno(errno),
        Act::ScmpActKill | Act::ScmpActKillThread => SeccompAction::KillThread,
        Act::ScmpActKillProcess => SeccompAction::KillProcess,
        Act::ScmpActLog => SeccompAction::Log,
        Act::ScmpActTrace => SeccompAction::Trace(errno),
        Act::ScmpActTrap => SeccompAction::Trap,
        Act::ScmpActNotify => {
            return Err(ContainerError::Seccomp(
                "action SCMP_ACT_NOTIFY is not supported; use a profile without a listener".into(),
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(json: &str) -> LinuxSeccomp {
        serde_json::from_str(json).expect("profile")
    }

    #[test]
    fn an_allow_list_with_one_errno_becomes_two_filters() {
        let programs = compile(&profile(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
                {"names":["read","write","no_such_call"],"action":"SCMP_ACT_ALLOW"},
                {"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}"#,
        ))
        .expect("compile");
        assert_eq!(programs.len(), 2);
    }

    #[test]
    fn a_deny_list_needs_no_filter_for_the_default() {
        let programs = compile(&profile(
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
                {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#,
        ))
        .expect("compile");
        assert_eq!(programs.len(), 1);
    }

    #[test]
    fn a_listener_is_refused_by_name() {
        let error = compile(&profile(
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
                {"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}"#,
        ))
        .expect_err("refused");
        assert!(error.to_string().contains("SCMP_ACT_NOTIFY"), "{error}");
    }

    #[test]
    fn an_installed_profile_bites() {
        let programs = compile(&profile(
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
                {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#,
        ))
        .expect("compile");
        let dir = tempfile::tempdir().expect("temp dir");
        let target = dir.path().join("made");
        // The filter binds only the thread that installs it.
        let errno = std::thread::spawn(move || {
            install(&programs).expect("install");
            std::fs::create_dir(target)
                .expect_err("denied")
                .raw_os_error()
        })
        .join()
        .expect("thread");
        assert_eq!(errno, Some(95));
    }
}
