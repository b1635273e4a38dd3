// The least that a server can do in JavaScript.
addEventListener("fetch", (event) => event.respondWith(new Response("hello\n")));
