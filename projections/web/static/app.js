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
  document.addEventListener("htmx:sse:error", () => { offline.hidden = false; });
  document.addEventListener("htmx:sse:after:connection", () => { offline.hidden = true; });
})();
