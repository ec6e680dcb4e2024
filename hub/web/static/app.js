// The little that htmx does not do: connect only while the tab is seen, keep the focus on a card that moves, j and k.
"use strict";
(() => {
  const live = document.getElementById("live");
  const said = document.getElementById("said");
  const offline = document.getElementById("offline");
  let focused = null; // the id of the card that has the focus, and the heading of its column

  // A tab opened in the background must not hold one of the browser's six connections to us: the stream begins when the tab
  // is first seen. It listens once, so saying so again does no harm.
  function connect() {
    if (live && !document.hidden) htmx.trigger(live, "hub:visible");
  }
  document.addEventListener("visibilitychange", connect);
  document.addEventListener("DOMContentLoaded", connect); // after htmx's own, which was there first

  function columnOf(card) {
    const heading = card.closest("section")?.querySelector("h2");
    return heading ? heading.firstElementChild.nextSibling.textContent.trim() : "";
  }

  function remember(event) {
    const card = event.target.closest?.(".card[id]");
    focused = card ? { card: card.id, inside: event.target.dataset.act || "", column: columnOf(card) } : null;
  }

  // A card that changes its column is taken away in one answer and comes back in another.
  function restore() {
    if (!focused || document.activeElement !== document.body) return;
    const card = document.getElementById(focused.card);
    if (!card) return;
    const column = columnOf(card);
    if (column !== focused.column) said.textContent = `${card.querySelector("h2, h3").textContent} → ${column}`;
    (card.querySelector(`[data-act="${focused.inside}"]`) || card).focus({ preventScroll: true });
  }

  function move(by) {
    const cards = [...document.querySelectorAll(".card[tabindex]")];
    const at = cards.indexOf(document.activeElement.closest?.(".card[tabindex]"));
    const next = at < 0 ? (by > 0 ? 0 : cards.length - 1) : Math.min(cards.length - 1, Math.max(0, at + by));
    cards[next]?.focus();
  }

  document.addEventListener("focusin", remember);
  document.addEventListener("htmx:after:swap", restore);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
    if (event.key === "j" || event.key === "k") move(event.key === "j" ? 1 : -1);
    else if (event.key === "Enter" && event.target.matches(".card")) event.target.querySelector("a.opens")?.click();
    else return;
    event.preventDefault();
  });
  // The stream says something every few seconds. When it ends, fails or falls silent, all that is shown is of the past: said at
  // once, and counted on by the page itself, as nobody else is there to do it.
  const SILENT = 12000;
  const zh = document.documentElement.lang.startsWith("zh");
  const began = new WeakMap(); // a text that counts → the age it was given, and when
  let heard = performance.now(), lost = null;

  function lose() {
    if (!live || document.hidden || lost !== null) return;
    lost = performance.now();
    offline.hidden = false;
    document.documentElement.classList.add("offline");
    tick();
  }

  function hear() {
    heard = performance.now();
    if (lost === null) return;
    lost = null;
    offline.hidden = true;
    document.documentElement.classList.remove("offline");
  }

  function written(seconds) {
    const s = Math.floor(seconds), m = Math.floor(s / 60), h = Math.floor(m / 60), d = Math.floor(h / 24);
    if (d) return zh ? `${d} 天 ${h % 24} 小时` : `${d} d ${h % 24} h`;
    if (h) return zh ? `${h} 小时 ${m % 60} 分` : `${h} h ${m % 60} min`;
    if (m) return zh ? `${m} 分 ${s % 60} 秒` : `${m} min ${s % 60} s`;
    return zh ? `${s} 秒` : `${s} s`;
  }

  function tick() {
    const now = performance.now();
    if (live && lost === null && !document.hidden && now - heard > SILENT) lose();
    for (const text of document.querySelectorAll(".ticks")) {
      if (text.closest(".lost")) {
        if (lost !== null) text.textContent = written((now - heard) / 1000);
        continue;
      }
      let since = began.get(text);
      if (!since || since.age !== text.dataset.age) began.set(text, since = { age: text.dataset.age, at: now });
      text.textContent = written(Number(since.age) + (now - since.at) / 1000);
    }
  }

  setInterval(tick, 1000);
  document.addEventListener("visibilitychange", () => { heard = performance.now(); });
  document.addEventListener("htmx:sse:error", lose);
  document.addEventListener("htmx:sse:before:connection", (event) => { if (event.detail?.connection?.attempt > 0) lose(); });
  document.addEventListener("htmx:sse:after:connection", hear);
  document.addEventListener("htmx:sse:after:message", hear);
})();
