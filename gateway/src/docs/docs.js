// Swagger UI for people who come here for the first time: it asks for an API key where the gateway wants one, carries ids from one
// call to the next, and shows the beginning of streams, which never end.
"use strict";

/** The scheme of API keys in the gateway's document. */
const KEY_SCHEME = "api_key";
/** How much of a stream is shown. */
const STREAM_MS = 5000;
const STREAM_CHARACTERS = 100_000;

/** `documents` as Swagger UI wants them, the gateway's first; `keys_required`. */
const settings = JSON.parse(document.getElementById("settings").textContent);
const keyPrompt = document.getElementById("key-prompt");
const keySaid = document.getElementById("key-said");
const elsewhere = document.getElementById("elsewhere");

/** What the gateway said of the key that it refused last. */
let refusal = null;

/** Whether calls to the chosen server go to the gateway that serves this page: the browser allows no others. */
function isHere(system) {
  const server = system.oas3Selectors.selectedServer() || "/";
  return URL.canParse(server, location) && new URL(server, location).origin === location.origin;
}

/** The API key's scheme, in the shape that Swagger UI's dialogue takes; nothing in documents without it. */
function keyScheme(system) {
  return system.authSelectors.definitionsToAuthorize()?.filter((scheme) => scheme.has(KEY_SCHEME));
}

function hasKey(system) {
  return Boolean(system.authSelectors.authorized()?.has(KEY_SCHEME));
}

function askForKey(system) {
  // Of a key that is there the dialogue shows nothing but that it is.
  if (refusal && hasKey(system)) system.authActions.logoutWithPersistOption([KEY_SCHEME]);
  system.authActions.showDefinitions(keyScheme(system));
}

/** Shows what stands above the documents, as things now are. */
function showPrompts(system) {
  const isLoaded = system.specSelectors.loadingStatus() === "success";
  const isWanted = isLoaded && keyScheme(system)?.size > 0 && (refusal || (settings.keys_required && !hasKey(system)));
  keyPrompt.hidden = !isWanted;
  keySaid.textContent = refusal || "This gateway wants an API key.";
  elsewhere.hidden = !isLoaded || isHere(system);
}

/**
 * The document with its optional parameters left empty at first: filters that match nothing, or an `Idempotency-Key` that was used
 * already, would only be in the way. What they may look like is said beside them.
 */
function withoutOptional(document) {
  for (const operation of Object.values(document.paths ?? {}).flatMap(Object.values)) {
    for (const parameter of operation.parameters ?? []) {
      if (parameter.required || parameter.example === undefined || parameter.name === "Prefer") continue;
      parameter.description = `${parameter.description ?? ""} (such as \`${parameter.example}\`)`;
      delete parameter.example;
    }
  }
  return document;
}

/** What Swagger UI does otherwise here. */
const plugin = ({ React }) => ({
  components: {
    Logo: () => React.createElement("span", { className: "brand" }, "TaskMaster"),
  },
  statePlugins: {
    auth: {
      wrapActions: {
        authorizeWithPersistOption: (original, system) => (given) => {
          refusal = null;
          original(given);
          // The dialogue would stay open, and say no more than that.
          system.authActions.showDefinitions(false);
        },
        logoutWithPersistOption: (original) => (names) => {
          refusal = null;
          return original(names);
        },
      },
    },
    spec: {
      wrapActions: {
        updateJsonSpec: (original) => (document) => original(withoutOptional(document)),
      },
      wrapSelectors: {
        allowTryItOutFor: (_, system) => () => isHere(system),
      },
    },
  },
});

/** Reads a stream for a while, and gives back what came as one answer. */
async function fetchForAWhile(url, request) {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), STREAM_MS);
  const answer = await fetch(url, { ...request, signal: stop.signal });
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      text += decoder.decode(value, { stream: true });
      if (text.length > STREAM_CHARACTERS) stop.abort();
    }
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    text += `: this page stops here; it goes on for those who follow it: curl -N '${answer.url}'\n`;
  } finally {
    clearTimeout(timer);
  }
  const whole = new Response(text, answer);
  Object.defineProperty(whole, "url", { value: answer.url });
  return whole;
}

function beforeRequest(request) {
  const accepts = Object.entries(request.headers ?? {}).find(([name]) => name.toLowerCase() === "accept");
  if (accepts?.[1] === "text/event-stream") request.userFetch = fetchForAWhile;
  return request;
}

/** The collections of which something was created or read by itself. */
const chosen = new Set();

/** Fills in the ids of what an answer is about wherever the document asks for them: create, then get, then cancel. */
function carryIds(system, answer) {
  const path = new URL(answer.url).pathname;
  for (const [template, item] of system.specSelectors.specJson().get("paths").entries()) {
    const [, collection, name] = template.match(/^(.*?)\/\{(\w+)\}/) ?? [];
    // Deeper down answers are about something else.
    if (!name || !(path === collection || /^\/[^/]+$/.test(path.slice(collection.length)) && path.startsWith(collection))) continue;
    const own = answer.obj[name];
    const listed = Object.values(answer.obj).find(Array.isArray)?.[0]?.[name];
    // A list says less about what is wanted next than what was asked for by itself.
    const value = own ?? (chosen.has(collection) ? undefined : listed);
    if (typeof value !== "string") continue;
    if (own) chosen.add(collection);
    for (const method of item.keys()) system.specActions.changeParam([template, method], name, "path", value, false);
  }
}

/** Fills in the ids of what `Location` leads to. */
function carryLocation(system, location) {
  const parts = location.split("/");
  for (const [template, item] of system.specSelectors.specJson().get("paths").entries()) {
    const names = template.split("/").map((part) => [part, part.match(/^\{(\w+)\}$/)?.[1]]);
    if (!parts.every((part, place) => names[place]?.[0] === part || names[place]?.[1])) continue;
    for (const [place, part] of parts.entries()) {
      if (!names[place][1]) continue;
      for (const method of item.keys()) system.specActions.changeParam([template, method], names[place][1], "path", part, false);
    }
  }
}

function afterAnswer(system, answer) {
  if (new URL(answer.url).pathname.startsWith("/v1/")) {
    // What incoming webhooks receive, and what targets call back, is refused for other reasons than the key.
    const hasOwnToken = /^\/v1\/(hooks\/[^/]+\/receive|attempts)$/.test(new URL(answer.url).pathname);
    if (answer.status === 401 && !hasOwnToken && keyScheme(system)?.size > 0) refusal = answer.obj?.detail ?? "The gateway refused the API key.";
    if (answer.ok && answer.obj) carryIds(system, answer);
    if (answer.ok && answer.headers?.location) carryLocation(system, answer.headers.location);
    showPrompts(system);
  }
  return answer;
}

let isFirstDocument = true;

const ui = SwaggerUIBundle({
  dom_id: "#swagger-ui",
  urls: settings.documents,
  layout: "StandaloneLayout",
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
  plugins: [plugin],
  tryItOutEnabled: true,
  persistAuthorization: true,
  deepLinking: true,
  displayOperationId: true,
  displayRequestDuration: true,
  // The shapes stand with the operations; all of them again, at the end, for those who open them.
  defaultModelsExpandDepth: 0,
  // Or documents of public hosts would be shown to validator.swagger.io.
  validatorUrl: null,
  requestInterceptor: beforeRequest,
  responseInterceptor: (answer) => afterAnswer(ui.getSystem(), answer),
  onComplete: () => {
    const system = ui.getSystem();
    showPrompts(system);
    if (isFirstDocument && !keyPrompt.hidden) askForKey(system);
    isFirstDocument = false;
  },
});

ui.getSystem().getStore().subscribe(() => showPrompts(ui.getSystem()));
document.getElementById("key-enter").addEventListener("click", () => askForKey(ui.getSystem()));
