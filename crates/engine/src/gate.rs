//! What of `wasi:sockets` is answered before Wasmtime's own implementation is:
//! kinds of sockets that no rule is about, and names that no rule has. So a
//! guest cannot tell anybody anything by what it looks up, and what is refused is
//! told.

use wasmtime::component::types::{self, ComponentItem, Type};
use wasmtime::component::{Accessor, HasData, Linker, LinkerInstance, Resource, Val};
use wasmtime::{Engine, StoreContextMut};
use wasmtime_wasi::p2;
use wasmtime_wasi::p3;
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsCtxView, WasiSocketsView};
use wisp_capability::{Grant, Scheme};

use crate::guest::Guest;
use crate::interfaces::of_host;
use crate::network::Network;
use crate::refusals::Refusal;

use p2::bindings::sockets::ip_name_lookup as lookup2;
use p2::bindings::sockets::network::{self as network2, ErrorCode, IpAddress};
use p3::bindings::sockets::ip_name_lookup as lookup3;

/// Functions that make sockets, and of which kind.
const MAKERS: [(&str, &str, Scheme); 4] = [
    (
        "wasi:sockets/tcp-create-socket",
        "create-tcp-socket",
        Scheme::Tcp,
    ),
    (
        "wasi:sockets/udp-create-socket",
        "create-udp-socket",
        Scheme::Udp,
    ),
    (
        "wasi:sockets/types",
        "[static]tcp-socket.create",
        Scheme::Tcp,
    ),
    (
        "wasi:sockets/types",
        "[static]udp-socket.create",
        Scheme::Udp,
    ),
];

/// Puts the gate before what `linker` has of `wasi:sockets` for a component of
/// type `ty`.
///
/// # Errors
/// A name that the linker cannot take.
pub fn put(
    grant: &Grant,
    engine: &Engine,
    ty: &types::Component,
    linker: &mut Linker<Guest>,
) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    for (import, found) in ty.imports(engine) {
        let name = import.split('@').next().unwrap_or(import);
        if !name.starts_with("wasi:sockets/") {
            continue;
        }
        let ComponentItem::ComponentInstance(instance) = found.ty else {
            continue;
        };
        for (function, export) in instance.exports(engine) {
            let ComponentItem::ComponentFunc(ty) = export.ty else {
                continue;
            };
            let maker = MAKERS
                .iter()
                .find(|(interface, maker, _)| *interface == name && *maker == function);
            if let Some((.., scheme)) = maker
                && !grant.outbound.uses(*scheme)
                && !grant.listen.uses(*scheme)
            {
                deny(
                    &mut linker.instance(&of_host(import))?,
                    function,
                    *scheme,
                    &ty,
                )?;
            }
        }
        if name == "wasi:sockets/ip-name-lookup" {
            if import.contains("@0.3.") {
                lookup3::add_to_linker::<Guest, Gate>(linker, Guest::gate)?;
            } else {
                lookup2::add_to_linker::<Guest, Gate>(linker, Guest::gate)?;
            }
        }
    }
    linker.allow_shadowing(false);
    Ok(())
}

fn deny(
    place: &mut LinkerInstance<'_, Guest>,
    function: &str,
    scheme: Scheme,
    ty: &types::ComponentFunc,
) -> wasmtime::Result<()> {
    // 0.2 has a list of codes, 0.3 has cases with more in them.
    let is_enum = match ty.results().next() {
        Some(Type::Result(result)) => matches!(result.err(), Some(Type::Enum(_))),
        _ => false,
    };
    place.func_new(
        function,
        move |store: StoreContextMut<'_, Guest>, _, _, results| {
            let guest: &Guest = store.data();
            guest.network().refusals.tell(&Refusal::Sockets(scheme));
            let code = match is_enum {
                true => Val::Enum("access-denied".into()),
                false => Val::Variant("access-denied".into(), None),
            };
            if let Some(result) = results.first_mut() {
                *result = Val::Result(Err(Some(Box::new(code))));
            }
            Ok(())
        },
    )
}

/// Stands before looking up names.
pub struct Gate;

impl HasData for Gate {
    type Data<'a> = View<'a>;
}

/// What it sees of a guest.
pub struct View<'a> {
    pub sockets: WasiSocketsCtxView<'a>,
    pub network: &'a Network,
}

impl View<'_> {
    fn may_look_up(&self, name: &str) -> bool {
        let allowed = self.network.outbound.allows_lookup(name);
        if !allowed {
            self.network.refusals.tell(&Refusal::Lookup(name));
        }
        allowed
    }
}

// What errors of lookups are made of.
impl network2::Host for View<'_> {
    fn convert_error_code(&mut self, error: p2::SocketError) -> wasmtime::Result<ErrorCode> {
        self.sockets.convert_error_code(error)
    }

    fn network_error_code(
        &mut self,
        error: Resource<network2::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        self.sockets.network_error_code(error)
    }
}

impl network2::HostNetwork for View<'_> {
    fn drop(&mut self, network: Resource<network2::Network>) -> wasmtime::Result<()> {
        network2::HostNetwork::drop(&mut self.sockets, network)
    }
}

impl lookup2::Host for View<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<lookup2::Network>,
        name: String,
    ) -> Result<Resource<lookup2::ResolveAddressStream>, p2::SocketError> {
        if !self.may_look_up(&name) {
            return Err(ErrorCode::AccessDenied.into());
        }
        let Some(lookup) = self.network.lookups.begin(&name) else {
            return Err(ErrorCode::TemporaryResolverFailure.into());
        };
        let answer = self.sockets.resolve_addresses(network, name);
        drop(lookup);
        answer
    }
}

impl lookup2::HostResolveAddressStream for View<'_> {
    fn resolve_next_address(
        &mut self,
        stream: Resource<lookup2::ResolveAddressStream>,
    ) -> Result<Option<IpAddress>, p2::SocketError> {
        self.sockets.resolve_next_address(stream)
    }

    fn subscribe(
        &mut self,
        stream: Resource<lookup2::ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<lookup2::Pollable>> {
        lookup2::HostResolveAddressStream::subscribe(&mut self.sockets, stream)
    }

    fn drop(&mut self, stream: Resource<lookup2::ResolveAddressStream>) -> wasmtime::Result<()> {
        lookup2::HostResolveAddressStream::drop(&mut self.sockets, stream)
    }
}

impl lookup3::Host for View<'_> {}

impl lookup3::HostWithStore<Guest> for Gate {
    async fn resolve_addresses(
        store: &Accessor<Guest, Self>,
        name: String,
    ) -> wasmtime::Result<Result<Vec<p3::bindings::sockets::types::IpAddress>, lookup3::ErrorCode>>
    {
        let begun = store.with(|mut view| {
            let view = view.get();
            view.may_look_up(&name)
                .then(|| view.network.lookups.begin(&name))
        });
        let lookup = match begun {
            None => return Ok(Err(lookup3::ErrorCode::AccessDenied)),
            Some(None) => return Ok(Err(lookup3::ErrorCode::TemporaryResolverFailure)),
            Some(Some(lookup)) => lookup,
        };
        let sockets = store.with_getter::<WasiSockets>(|guest| guest.sockets());
        let answer =
            <WasiSockets as lookup3::HostWithStore<Guest>>::resolve_addresses(&sockets, name).await;
        drop(lookup);
        answer
    }
}
