// Puts newer parts of the page in the place of older ones. The server has written them; nothing is drawn here.
(() => {
  "use strict";
  const root = document.documentElement;
  const live = document.getElementById("live");
  const spoken = document.getElementById("spoken");
  const words = live.querySelector(".words");
  const STALE_AFTER_MS = 2500;
  let source = null, last = 0, clock = "", tab = document.title, said = spoken.textContent, zoom = { from: 0, width: 1 };

  // Changes `old` into `fresh` in place: focus, scroll, selection and open details stay as they are.
  function morph(old, fresh) {
    const before = [...old.childNodes], after = [...fresh.childNodes];
    after.forEach((node, at) => {
      const there = before[at];
      if (!there) old.append(node);
      else if (there.nodeType !== node.nodeType || there.nodeName !== node.nodeName || there.id !== node.id) there.replaceWith(node);
      else if (node.nodeType !== 1) { if (there.data !== node.data) there.data = node.data; }
      else {
        for (const { name } of [...there.attributes]) if (!node.hasAttribute(name) && name !== "open") there.removeAttribute(name);
        for (const { name, value } of node.attributes) if (there.getAttribute(name) !== value) there.setAttribute(name, value);
        morph(there, node);
      }
    });
    before.slice(after.length).forEach((node) => node.remove());
  }

  function show(parts) {
    if (parts.edition && parts.edition !== root.dataset.edition) return location.reload();
    for (const [id, html] of Object.entries(parts)) {
      if (id === "edition") continue;
      if (id === "clock") { clock = html; continue; }
      if (id === "tab") { tab = html; continue; }
      if (id === "spoken") { said = html; continue; }
      morph(document.getElementById(id), new DOMParser().parseFromString(html, "text/html").body);
      if (id === "timeline") stretch();
    }
  }

  function put(element, text) { if (element.textContent !== text) element.textContent = text; }

  function badge() {
    const age = performance.now() - last, stale = age > STALE_AFTER_MS;
    if (!clock && !stale) return;
    const state = stale ? "stale" : "live";
    if (root.dataset.live !== state) root.dataset.live = state;
    put(spoken, stale ? "No connection to pgsteer, the page is old" : said);
    const title = stale ? `\u25cc no connection, ${tab}` : tab;
    if (document.title !== title) document.title = title;
    put(words, stale ? `No connection for ${Math.round(age / 1000)} s, retrying` : `Live, ${clock} UTC`);
  }

  function connect() {
    if (source) source.close();
    source = new EventSource(`/api/v1/stream?view=page&range=${root.dataset.range}`);
    source.addEventListener("parts", (event) => { last = performance.now(); show(JSON.parse(event.data)); badge(); });
  }

  // The lanes are wider than their window: all places in them are percent.
  function stretch() {
    const lanes = document.querySelector(".stretch");
    if (!lanes) return;
    lanes.setAttribute("width", `${100 / zoom.width}%`);
    lanes.setAttribute("x", `${-100 * zoom.from / zoom.width}%`);
  }
  function zoomBy(factor, at) {
    const width = Math.min(1, Math.max(1 / 64, zoom.width * factor));
    const from = zoom.from + at * (zoom.width - width);
    zoom = { width, from: Math.min(1 - width, Math.max(0, from)) };
    stretch();
  }
  document.getElementById("timeline").addEventListener("wheel", (event) => {
    const lanes = event.target.closest(".lanes");
    if (!lanes || event.ctrlKey) return;
    event.preventDefault();
    const box = lanes.getBoundingClientRect();
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      zoom.from = Math.min(1 - zoom.width, Math.max(0, zoom.from + zoom.width * event.deltaX / box.width));
      stretch();
    } else zoomBy(event.deltaY > 0 ? 1.25 : 0.8, (event.clientX - box.left) / box.width);
  }, { passive: false });
  document.getElementById("timeline").addEventListener("keydown", (event) => {
    if (!event.target.closest(".lanes")) return;
    const step = { ArrowLeft: -0.1, ArrowRight: 0.1 }[event.key];
    if (event.key === "+" || event.key === "=") zoomBy(0.5, 1);
    else if (event.key === "-") zoomBy(2, 1);
    else if (event.key === "0") { zoom = { from: 0, width: 1 }; stretch(); }
    else if (step) { zoom.from = Math.min(1 - zoom.width, Math.max(0, zoom.from + step * zoom.width)); stretch(); }
    else return;
    event.preventDefault();
  });

  let tried = last = performance.now();
  connect();
  setInterval(() => {
    badge();
    // A browser gives up after an error of the server, and a connection may be dead without an end.
    const now = performance.now(), wait = source.readyState === EventSource.CLOSED ? 2000 : 10000;
    if (now - last > wait && now - tried > wait) { tried = now + Math.random() * 1000; connect(); }
  }, 500);
  document.addEventListener("visibilitychange", badge);
})();
