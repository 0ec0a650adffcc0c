// The page at /docs in Chromium, in the words of somebody who uses it.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const PATIENCE_MS = 30_000;
const ARGUMENTS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** A browser with nothing in it, and the documentation of one gateway open in it. */
export class Docs {
  /** What the browser complained about so far. */
  complaints = [];
  /** Every host that was asked for anything. */
  hosts = new Set();

  static async open(url) {
    const docs = new Docs();
    docs.url = url;
    docs.directory = await mkdtemp(join(tmpdir(), "taskmaster-browser-"));
    docs.context = await chromium.launchPersistentContext(docs.directory, {
      executablePath: CHROMIUM,
      headless: true,
      args: ARGUMENTS,
      viewport: { width: 1280, height: 1000 },
    });
    docs.context.setDefaultTimeout(PATIENCE_MS);
    docs.page = docs.context.pages()[0];
    docs.page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) docs.complaints.push(`${message.text()} ${message.location().url}`);
    });
    docs.page.on("pageerror", (error) => docs.complaints.push(String(error)));
    docs.context.on("request", (request) => {
      const { host, protocol } = new URL(request.url());
      if (protocol.startsWith("http")) docs.hosts.add(host);
    });
    await docs.visit("/docs");
    return docs;
  }

  async visit(path) {
    await this.page.goto(this.url + path);
    await this.page.locator(".opblock").first().waitFor();
  }

  async close() {
    await this.context.close();
    await rm(this.directory, { recursive: true, force: true });
  }

  /** Keeps a picture for whoever wants to look, where SCREENSHOTS says so. */
  async picture(name) {
    if (process.env.SCREENSHOTS) await this.page.screenshot({ path: join(process.env.SCREENSHOTS, `${name}.png`) });
  }

  /** The document that is shown, as the page itself gets it. */
  async document() {
    const path = await this.page.locator(".info a.link").first().getAttribute("href");
    return (await this.page.request.get(new URL(path, this.url).href)).json();
  }

  get keyPrompt() {
    return this.page.locator("#key-prompt");
  }

  get dialogue() {
    return this.page.locator(".modal-ux");
  }

  /** Types a key into the dialogue. */
  async authorise(key) {
    await this.dialogue.locator("#auth-bearer-value").fill(key);
    await this.dialogue.getByRole("button", { name: "Apply credentials" }).click();
    await this.dialogue.waitFor({ state: "detached" });
  }

  operation(operation) {
    return new Shown(this, operation);
  }
}

/** All operations of a document. */
export function operationsOf(document) {
  return Object.entries(document.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => ({ ...operation, path, method })),
  );
}

/** The example of an operation's body; undefined without one. */
export function exampleOf(document, operation) {
  const content = operation.requestBody?.content["application/json"];
  const reference = content?.schema.$ref?.split("/").at(-1);
  const schema = reference ? document.components.schemas[reference] : content?.schema;
  return content?.example ?? Object.values(content?.examples ?? {})[0]?.value ?? schema?.example ?? schema?.examples?.[0];
}

/** An operation on the page. */
class Shown {
  constructor(docs, operation) {
    this.operation = operation;
    this.block = docs.page.locator(`[id="operations-${operation.tags[0].replaceAll(" ", "_")}-${operation.operationId}"]`);
  }

  async unfold() {
    const isOpen = await this.block.evaluate((block) => block.classList.contains("is-open"));
    if (!isOpen) await this.block.locator(".opblock-summary-control").click();
    await this.block.locator(".btn.execute").waitFor();
    return this;
  }

  async fold() {
    await this.block.locator(".opblock-summary-control").click();
    await this.block.locator(".btn.execute").waitFor({ state: "detached" });
  }

  field({ name, in: place }) {
    return this.block.locator(`tr[data-param-name="${name}"][data-param-in="${place}"]`).locator("input, select").first();
  }

  get body() {
    return this.block.locator("textarea.body-param__text");
  }

  /** Empties the field with this name, where there is one. */
  async clear(name) {
    const parameter = this.operation.parameters?.find((parameter) => parameter.name === name);
    if (parameter) await this.field(parameter).fill("");
  }

  /** Presses "Execute": the status that the page then shows, and the answer's text. */
  async execute() {
    const clear = this.block.locator(".btn-clear");
    if (await clear.isVisible()) await clear.click();
    await this.block.locator(".btn.execute").click();
    const answer = this.block.locator(".live-responses-table .response");
    await answer.waitFor();
    const shown = await answer.locator(".response-col_status").innerText();
    const text = answer.locator(".highlight-code code, .highlight-code pre").first();
    return { status: Number.parseInt(shown, 10), text: (await text.count()) ? await text.textContent() : "" };
  }
}

/** Asserts that the status is one that the document knows. */
export function assertDocumented(operation, status) {
  const known = operation.responses[status] ?? operation.responses[`${String(status)[0]}XX`];
  assert.ok(known, `${operation.operationId}: ${status} is not documented`);
}
