// The gallery. All that comes from the data is put in as text, never as markup; nothing is asked for from outside.
"use strict";

const $ = (id) => document.getElementById(id);
const DATA = JSON.parse($("data").textContent);
const CHUNK = 48;
const SVG = document.querySelector("svg").namespaceURI;
const PAIRED = { fixed: "fixed by B", broken: "broken by B", both_right: "both right", both_wrong: "both wrong" };
const SAYS = { yes: "says yes", no: "says no", unreadable: "unreadable" };
const many = DATA.names.length > 1;

// Filters by name: a heading, and of a card the values that it has. A `choice` is no filter: it says whose answers count.
const FILTERS = {
  dataset: { label: "Data set", of: (card) => [card.dataset] },
  product: { label: "Product", of: (card) => [card.product] },
  truth: { label: "Image is", of: (card) => [card.defect ? "defective" : "normal"] },
  model: { label: "Model", choice: true, values: () => DATA.names, only: many },
  says: { label: "Answer", of: (card) => asked(card).map((answer) => (answer.says === null ? "unreadable" : answer.says ? "yes" : "no")), titles: SAYS },
  kind: { label: "Kind of error", of: (card) => asked(card).flatMap((answer) => answer.kinds), titles: DATA.kinds },
  a: { label: "Compare A", choice: true, values: () => DATA.names, only: many, always: true },
  b: { label: "with B", choice: true, values: () => DATA.names, only: many, always: true },
  status: { label: "Status", of: paired, titles: PAIRED, only: many },
};
const state = {};
let found = [], built = 0;

const title = (name) => DATA.models[DATA.names.indexOf(name)] ?? name;
const asked = (card) => (state.model ? card.answers.filter((answer) => DATA.names[answer.model] === state.model) : card.answers);
const right = (card, answer) => answer.says === card.defect;

// What became of a card between models A and B, for each seed that both answered with.
function paired(card) {
  const of = (name) => card.answers.filter((answer) => DATA.names[answer.model] === name);
  return of(state.a).flatMap((first) => of(state.b).filter((second) => second.seed === first.seed).map((second) => {
    const was = right(card, first), is = right(card, second);
    return was === is ? (was ? "both_right" : "both_wrong") : is ? "fixed" : "broken";
  }));
}

function made(tag, { text, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  if (text !== undefined) element.textContent = text;
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function drawn(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// The state is in the address, so that a link shows what its sender saw.
function read() {
  const told = new URLSearchParams(location.hash.startsWith("#gallery") ? location.hash.slice("#gallery".length) : "");
  for (const name of [...Object.keys(FILTERS), "search", "image"]) state[name] = told.get(name) ?? "";
  if (!DATA.names.includes(state.model)) state.model = "";
  if (!DATA.names.includes(state.a)) state.a = DATA.pair[0] ?? "";
  if (!DATA.names.includes(state.b)) state.b = DATA.pair[1] ?? "";
}

function keep() {
  const told = new URLSearchParams(Object.entries(state).filter(([name, value]) => value && !(FILTERS[name]?.always && !state.status)));
  // A page inside another one (a sandbox of MLflow, say) may have no address of its own.
  try { history.replaceState(null, "", `#gallery${[...told].length ? "&" : ""}${told}`); } catch { /* stays as it is */ }
}

// One pass over all cards: those that pass, and for every filter how many each of its values would leave.
function filtered() {
  const names = Object.keys(FILTERS).filter((name) => !FILTERS[name].choice);
  const counts = Object.fromEntries(names.map((name) => [name, new Map()]));
  const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  found = DATA.cards.filter((card) => {
    if (words.length && !words.every((word) => searchable(card).includes(word))) return false;
    const values = names.map((name) => [...new Set(FILTERS[name].of(card))]);
    const failed = names.filter((name, at) => state[name] && !values[at].includes(state[name]));
    names.forEach((name, at) => {
      if (failed.length === 0 || (failed.length === 1 && failed[0] === name)) {
        for (const value of values[at]) counts[name].set(value, (counts[name].get(value) ?? 0) + 1);
      }
    });
    return failed.length === 0;
  });
  return counts;
}

function searchable(card) {
  return (card.words ??= [card.id, card.location, card.type, ...card.answers.flatMap((answer) => [answer.location, answer.type, answer.reasoning, answer.text])]
    .filter(Boolean).join("\n").toLowerCase());
}

function show() {
  const counts = filtered();
  fill(counts);
  $("count").textContent = `${found.length.toLocaleString("en")} of ${DATA.cards.length.toLocaleString("en")} images`;
  $("cards").replaceChildren();
  built = 0;
  more();
}

function more() {
  const next = found.slice(built, built + CHUNK);
  $("cards").append(...next.map((card, at) => item(card, built + at)));
  built += next.length;
  $("more").hidden = built >= found.length;
  $("more").textContent = `Show more (${(found.length - built).toLocaleString("en")})`;
}

// The filters' controls are made once and then only refilled, so that the focus stays where it is.
function controls() {
  const selects = Object.entries(FILTERS).filter(([, filter]) => filter.only !== false).map(([name, filter]) => {
    const select = made("select", { id: `filter-${name}` });
    select.onchange = () => { change({ [name]: select.value, ...(name === "dataset" ? { product: "" } : {}) }); };
    return made("label", { text: filter.label }, select);
  });
  const search = made("input", { id: "filter-search", type: "search", autocomplete: "off" });
  let waiting = 0;
  search.oninput = () => { clearTimeout(waiting); waiting = setTimeout(() => change({ search: search.value }), 150); };
  const clear = made("button", { type: "button", id: "clear", text: "Clear filters" });
  clear.onclick = () => change(Object.fromEntries([...Object.keys(FILTERS), "search"].filter((name) => !FILTERS[name]?.always).map((name) => [name, ""])));
  $("filters").replaceChildren(...selects, made("label", { text: "Search names and texts" }, search), clear);
}

function fill(counts) {
  for (const [name, filter] of Object.entries(FILTERS)) {
    const select = $(`filter-${name}`);
    if (!select) continue;
    const known = filter.choice ? filter.values() : Object.keys(filter.titles ?? {}).filter((value) => counts[name].has(value) || value === state[name]);
    const values = known.length ? known : [...new Set([...counts[name].keys(), ...(state[name] ? [state[name]] : [])])].sort();
    const told = (value) => (filter.choice ? title(value) : `${filter.titles?.[value] ?? value} (${(counts[name].get(value) ?? 0).toLocaleString("en")})`);
    const options = values.map((value) => made("option", { value, text: told(value) }));
    select.replaceChildren(...(filter.always ? [] : [made("option", { value: "", text: "all" })]), ...options);
    select.value = state[name];
    select.classList.toggle("on", Boolean(state[name]) && !filter.always);
  }
  const search = $("filter-search");
  if (search.value !== state.search && document.activeElement !== search) search.value = state.search;
}

function change(values) {
  Object.assign(state, values);
  if (!("search" in values)) $("filter-search").value = state.search;
  keep();
  show();
}

function truth(card) {
  return card.defect ? ["defective", card.location, card.type].filter(Boolean).join(" · ") : "normal";
}

function views(card) {
  if (!card.picture) return made("span", { class: "quiet", text: "no picture" });
  const whole = frame(card.picture, `${card.id}, ${truth(card)}`);
  whole.append(cells(card));
  return made("div", { class: "views" }, whole, card.near ? frame(card.near, "the annotated defect from near") : null);
}

function frame(picture, alt) {
  const { width, height } = picture, size = { width, height };
  const box = made("div", { class: "frame" }, made("img", { src: picture.url, alt, ...size, class: Math.max(width, height) <= 96 ? "tiny" : null, decoding: "async" }));
  box.style.setProperty("--ratio", width / height);
  if (picture.outline) box.append(made("img", { src: picture.outline, alt: "outline of the annotated mask", ...size, class: "outline" }));
  return box;
}

function cells(card) {
  const side = 100 / DATA.grid;
  const rect = (kind, inset) => ([row, column]) =>
    drawn("rect", { class: kind, x: column * side + inset, y: row * side + inset, width: side - 2 * inset, height: side - 2 * inset });
  const said = asked(card).flatMap((answer, at) => (answer.cells ?? []).map(rect(`said-cell s${answer.model % 8}`, 3 + 2 * at)));
  return drawn("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" }, ...(card.cells ?? []).map(rect("true-cell", 1)), ...said);
}

function spoken(card, answer, whole) {
  const says = answer.says === null ? `unreadable (${answer.status})` : answer.says ? "Yes" : "No";
  const seeds = new Set(card.answers.map((each) => each.seed)).size > 1 ? ` · seed ${answer.seed}` : "";
  const line = made("p", { class: "said" }, made("b", { text: `${DATA.models[answer.model]}${seeds}: ` }), `${[says, answer.location, answer.type].filter(Boolean).join(" · ")} `);
  for (const kind of answer.kinds) {
    line.append(made("span", { class: `chip ${kind === "right" ? "right" : kind.startsWith("wrong") ? "half" : "wrong"}`, text: DATA.kinds[kind] }), " ");
  }
  const words = answer.reasoning ?? (answer.text && !/^\W*(yes|no)\W*$/i.test(answer.text) ? answer.text : null);
  const facts = [answer.tokens && `${answer.tokens} tokens`, answer.p_yes !== undefined && `P(yes) ${answer.p_yes.toFixed(3)}`, answer.status !== "ok" && answer.status].filter(Boolean);
  return made("li", { class: `s${answer.model % 8}` }, line,
    words ? made("p", { class: "why", text: words }) : null,
    whole && facts.length ? made("p", { class: "quiet", text: facts.join(" · ") }) : null,
    whole && answer.text && answer.text !== words ? made("details", {}, made("summary", { class: "quiet", text: "Word for word" }), made("pre", { text: answer.text })) : null);
}

function item(card, at) {
  const button = made("button", { type: "button", "data-at": at, "aria-label": `Open ${card.id}` }, views(card));
  button.onclick = () => open(at);
  return made("li", { class: "card" }, button, made("div", { class: "words" },
    made("h3", { text: card.id }), made("p", { class: "truth", text: truth(card) }),
    made("ul", { class: "answers" }, ...asked(card).map((answer) => spoken(card, answer, false)))));
}

function open(at) {
  const card = found[at], dialog = $("detail");
  if (!card) return;
  const step = (by, text) => {
    const button = made("button", { type: "button", text, disabled: !found[at + by] });
    button.onclick = () => open(at + by);
    return button;
  };
  dialog.replaceChildren(
    made("form", { method: "dialog" }, step(-1, "← previous"), step(1, "next →"), made("button", { text: "Close" })),
    made("h3", { id: "detail-name", text: card.id }), made("p", { class: "truth", text: truth(card) }),
    made("div", { class: "layout" }, views(card), made("ul", { class: "answers" }, ...card.answers.map((answer) => spoken(card, answer, true)))));
  dialog.dataset.at = at;
  if (!dialog.open) dialog.showModal();
  state.image = card.id;
  keep();
}

function move(by) {
  const buttons = [...document.querySelectorAll("#cards .card > button")];
  const at = buttons.indexOf(document.activeElement);
  const next = buttons[at < 0 ? 0 : Math.min(buttons.length - 1, Math.max(0, at + by))];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}

const KEYS = {
  "/": () => $("filter-search").focus(), j: () => move(1), k: () => move(-1),
  m: () => document.body.classList.toggle("no-mask"), c: () => document.body.classList.toggle("no-cells"),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
  const dialog = $("detail"), step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (dialog.open && step) { if (found[+dialog.dataset.at + step]) open(+dialog.dataset.at + step); event.preventDefault(); return; }
  if (KEYS[event.key] && !(dialog.open && "/jk".includes(event.key))) { event.preventDefault(); KEYS[event.key](); }
});

$("detail").addEventListener("close", () => {
  const button = document.querySelector(`#cards button[data-at="${$("detail").dataset.at}"]`);
  state.image = "";
  keep();
  button?.focus();
});
$("more").onclick = more;
new IntersectionObserver((seen) => { if (seen.some((each) => each.isIntersecting) && built < found.length) more(); }, { rootMargin: "800px" }).observe($("more"));
window.addEventListener("beforeprint", () => document.querySelectorAll("main details").forEach((each) => { each.open = true; }));

function visit() {
  read();
  show();
  if (!location.hash.startsWith("#gallery")) return;
  $("filter-search").value = state.search;
  $("gallery").scrollIntoView();
  if (state.image) open(found.findIndex((card) => card.id === state.image));
}

controls();
window.addEventListener("hashchange", () => { if (location.hash.startsWith("#gallery") && location.hash !== "") visit(); });
visit();
