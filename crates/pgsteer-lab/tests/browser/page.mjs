// The live page in a real browser. Reads one command a line from stdin, writes one line for each:
// `ok` with what it found, or `failed` with the reason.
//
// node page.mjs NODE_MODULES URL FOLDER
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";

const [modules, url, folder] = process.argv.slice(2);
const require = createRequire(`${modules}/page.mjs`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];
// A busy machine takes seconds for a page.
const PATIENCE_MS = 45000;

const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", headless: true, args: FLAGS, timeout: 4 * PATIENCE_MS });
const faults = [];

async function open(name, options) {
  const context = await browser.newContext({ ...options, reducedMotion: "reduce" });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  // A breach of the policy is an error on the console.
  page.on("console", (message) => { if (message.type() === "error") faults.push(`${name}: ${message.text()}`); });
  page.on("pageerror", (error) => faults.push(`${name}: ${error}`));
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith("data:")) faults.push(`${name}: asked ${request.url()}`);
  });
  await page.goto(url);
  return page;
}

// One page with a script, which changes its size and its colours, and one without.
const page = await open("page", { viewport: { width: 1280, height: 900 }, colorScheme: "light" });
const scriptless = await open("scriptless", { viewport: { width: 1280, height: 900 }, colorScheme: "light", javaScriptEnabled: false });
const VIEWS = {
  light: { width: 1280, height: 900, colorScheme: "light" },
  dark: { width: 1280, height: 900, colorScheme: "dark" },
  narrow: { width: 320, height: 900, colorScheme: "light" },
  wall: { width: 3840, height: 2160, colorScheme: "dark" },
};

async function look({ width, height, colorScheme }) {
  await page.setViewportSize({ width, height });
  await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
}

// Waits until both pages show `text` in their state. Without a script the page has to be loaded again.
async function state(text) {
  for (const each of [page, scriptless]) {
    const began = Date.now();
    let shown = "";
    while (!(shown = await each.locator(".sentence").textContent()).includes(text)) {
      if (Date.now() - began > PATIENCE_MS) throw new Error(`the state is: ${shown}`);
      if (each === scriptless) await each.reload();
      else await each.waitForTimeout(20);
    }
  }
}

async function contains(part, text) {
  const shown = page.locator(`#${part}`);
  await page.waitForFunction(([part, text]) => document.getElementById(part).innerText.includes(text), [part, text])
    .catch(async () => { throw new Error(`${part} does not contain ${text}: ${await shown.innerText()}`); });
  await scriptless.reload();
  const plain = await scriptless.locator(`#${part}`).innerText();
  if (!plain.includes(text)) throw new Error(`without a script ${part} does not contain ${text}: ${plain}`);
}

// Pictures of all views, in each of which the state has `text` before and after, and no line is too wide.
async function shots(phase, text) {
  const shown = async (each) => {
    const sentence = await each.locator(".sentence").textContent();
    if (!sentence.includes(text)) throw new Error(`the state is: ${sentence}`);
  };
  for (const [name, view] of Object.entries(VIEWS)) {
    await look(view);
    await page.evaluate(() => scrollTo(0, 0));
    await shown(page);
    await page.screenshot({ path: `${folder}/${phase}-${name}.png` });
    const [has, room] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    if (has > room) throw new Error(`${name} is ${has} wide, and the window ${room}`);
    await shown(page);
  }
  await look(VIEWS.light);
  await shown(scriptless);
  await scriptless.screenshot({ path: `${folder}/${phase}-scriptless.png` });
}

async function audit() {
  let rules = 0;
  await page.evaluate(() => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
  for (const name of ["light", "dark", "narrow"]) {
    await look(VIEWS[name]);
    // The policy forbids another script in the page; the debugger may add one.
    const session = await page.context().newCDPSession(page);
    await session.send("Runtime.evaluate", { expression: axe });
    const found = await page.evaluate(() => axe.run(document));
    rules += found.passes.length;
    const bad = found.violations.map((each) => `${each.id}: ${each.nodes.map((node) => node.html).slice(0, 3).join(" ")}`);
    if (bad.length) throw new Error(`${name}: ${bad.join("; ")}`);
  }
  await look(VIEWS.light);
  await page.evaluate(() => document.querySelectorAll("details").forEach((each) => { each.open = false; }));
  return `${rules} rules passed`;
}

// Begins to look for the next change of the open gates.
async function watch() {
  await page.evaluate((patience) => {
    const open = () => document.querySelectorAll("#picture .line.open").length;
    const before = open();
    window.painted = new Promise((resolve, reject) => {
      const observer = new MutationObserver(() => {
        if (open() === before) return;
        observer.disconnect();
        // The frame is on the screen when the task after it runs.
        requestAnimationFrame(() => {
          const channel = new MessageChannel();
          channel.port1.onmessage = () => resolve(performance.timeOrigin + performance.now());
          channel.port2.postMessage(0);
        });
      });
      observer.observe(document.getElementById("picture"), { subtree: true, childList: true, attributes: true });
      setTimeout(() => reject(new Error(`no change of a gate: ${before} were open, ${open()} are`)), patience);
    });
    window.painted.catch(() => {});
  }, PATIENCE_MS);
}

// The time at which that change was on the screen, in milliseconds since 1970.
async function painted() {
  return page.evaluate(() => window.painted);
}

// The badge and the colours when nothing comes from pgsteer any more.
async function stale() {
  await page.waitForFunction(() => document.documentElement.dataset.live === "stale");
  const words = await page.locator("#live .words").textContent();
  if (!/No connection for \d+ s, retrying/.test(words)) throw new Error(words);
  const grey = await page.locator("main").evaluate((main) => getComputedStyle(main).filter);
  if (!grey.includes("grayscale")) throw new Error(`main has the filter ${grey}`);
  return words;
}

async function alive() {
  await page.waitForFunction(() => document.documentElement.dataset.live === "live");
}

// Focus, an open list and the zoom outlive the updates of some seconds.
async function kept() {
  await page.locator("#all-gates summary").click();
  await page.locator("#all-gates summary").focus();
  await page.locator("#lanes").press("+");
  await page.locator("#all-gates summary").focus();
  await page.waitForTimeout(2500);
  const found = await page.evaluate(() => ({
    open: document.getElementById("all-gates").open,
    focus: document.activeElement.parentElement.id,
    zoom: document.querySelector(".stretch").getAttribute("width"),
  }));
  const text = JSON.stringify(found);
  if (text !== '{"open":true,"focus":"all-gates","zoom":"200%"}') throw new Error(text);
  await page.locator("#lanes").press("0");
  await page.locator("#all-gates summary").click();
}

const commands = { state, contains, shots, audit, watch, painted, stale, alive, kept,
  forget: async () => { faults.length = 0; },
  faults: async () => { if (faults.length) throw new Error(faults.join("; ")); } };

console.log("ok ready");
for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...rest] = line.split("\t");
  try {
    console.log(`ok ${(await commands[command](...rest)) ?? ""}`);
  } catch (error) {
    console.log(`failed ${String(error.message ?? error).replaceAll("\n", " ")}`);
  }
}
await browser.close();
