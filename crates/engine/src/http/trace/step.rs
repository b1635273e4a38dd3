//! The spans of what the host does to answer a request.

use std::sync::Arc;
use std::time::Instant;

use wasmtime::Trap;

use super::context::SpanContext;
use super::scope::Scope;
use super::span::{self, Parent, Problem, What, cut};

/// What a step that is not ended has come to: its guest took too long.
const CUT_OFF: &str = "timeout";

/// A step that goes on. It ends by being dropped, too, but not well.
pub struct Step(Option<Going>);

struct Going {
    scope: Arc<Scope>,
    context: SpanContext,
    parent: Parent,
    begun: Instant,
    name: &'static str,
}

impl Step {
    /// Begins a step of what `scope` is about; nothing, if that is not recorded.
    pub fn begin(scope: Option<&Arc<Scope>>, name: &'static str) -> Self {
        let going = scope.and_then(|scope| {
            let (context, parent) = scope.below()?;
            Some(Going {
                scope: scope.clone(),
                context,
                parent,
                begun: Instant::now(),
                name,
            })
        });
        Self(going)
    }

    /// It is over, and this came of it.
    pub fn end<T>(mut self, result: &wasmtime::Result<T>) {
        if let Some(going) = self.0.take() {
            going.end(result.as_ref().err().map(problem));
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(going) = self.0.take() {
            going.end(Some(Problem {
                kind: CUT_OFF.into(),
                text: "".into(),
            }));
        }
    }
}

impl Going {
    fn end(self, problem: Option<Problem>) {
        let step = span::Step {
            name: self.name,
            problem,
        };
        self.scope.export(
            self.context,
            Some(self.parent),
            self.begun,
            What::Step(step),
        );
    }
}

/// A trap has the name that Wasmtime gives it.
fn problem(error: &wasmtime::Error) -> Problem {
    let kind = match error.downcast_ref::<Trap>() {
        Some(trap) => format!("{trap:?}"),
        None => "guest_error".to_owned(),
    };
    Problem {
        kind: kind.into(),
        text: cut(&error.root_cause().to_string()),
    }
}
