// The partner's page, live. The server's HTML holds the first numbers; this keeps them right.
//
// One stream brings full balances, never differences, so whatever was missed makes no number wrong.
// It is read with fetch instead of EventSource: that hides the pings, which tell a quiet stream from
// a dead one, and hides the status that says a visit is over. After a sleep, a restart of the server
// or a change of network it connects again by itself and starts from the snapshot.

const SILENCE_MS = 45_000; // three pings of the server
const ASLEEP_MS = 20_000; // a timer of a second that comes so late: the machine slept
const RETRY_MS = [500, 10_000];
const SPOKEN_EVERY_MS = 30_000;
const LINES_EVERY_MS = 2_000;
const NAMED_MOST = 50;
const SPREAD_MS = 3_000;
const LINES_SHOWN = 20;
const DAY_MS = 86_400_000;
const DAY_S = 86_400;

const page = document.body.dataset;
const decimals = JSON.parse(page.decimals);
const cards = new Map([...document.querySelectorAll(".card")].map((card) => [card.dataset.currency, card]));
const [state, updated, clock, spoken, rows, noRows] = ["state", "updated", "updated", "spoken", "rows", "no-rows"].map(
  (id) => document.getElementById(id),
);
const ahead = Date.parse(page.now) - Date.now(); // our clock may be wrong, the server's days are not
const now = () => Date.now() + ahead;
const api = `/v1/partners/${page.partner}`;

// --- amounts: whole minor units as BigInt, as exact as the books ---------------------------------

const minor = (text) => BigInt(text.replace(".", ""));

function text(amount, currency) {
  const places = decimals[currency];
  const digits = String(amount < 0n ? -amount : amount).padStart(places + 1, "0");
  const cut = digits.length - places;
  return (amount < 0n ? "-" : "") + digits.slice(0, cut) + (places ? "." + digits.slice(cut) : "");
}

function forPeople(exact) {
  const [whole, rest] = exact.replace("-", "\u2212").split(".");
  return whole.replace(/\B(?=(\d{3})+$)/g, "\u202f") + (rest ? "." + rest : "");
}

function show(card, figure, amount) {
  const place = card.querySelector(`[data-figure=${figure}]`);
  const exact = text(amount, card.dataset.currency);
  const data = place.firstElementChild;
  if (data.value !== exact) {
    data.value = exact;
    data.textContent = forPeople(exact);
  }
  if (figure === "held") place.parentElement.hidden = amount === 0n;
}

// --- the day: a chart and a table, both of the sum after each minute -----------------------------

const days = new Map(); // currency -> {minutes, sums}; a sum is exact, the chart's is not
let day = page.day;
let askedDay = null;

async function readDay() {
  const asked = (askedDay = Symbol("day"));
  const answer = await fetch(`${api}/day`, { cache: "no-store" });
  if (!answer.ok || askedDay !== asked) return;
  const read = await answer.json();
  if (askedDay !== asked) return;
  day = read.day;
  days.clear();
  for (const each of read.data) {
    days.set(each.currency, { minutes: each.minutes, sums: each.sums.map(minor) });
    const known = latest.get(each.currency);
    if (known !== undefined && latestDay === day) note(each.currency, known);
  }
  draw();
}

function note(currency, sum) {
  if (!days.has(currency)) days.set(currency, { minutes: [], sums: [] });
  const { minutes, sums } = days.get(currency);
  const minute = Math.floor((now() % DAY_MS) / 60_000);
  if (sums.length && sums.at(-1) === sum) return;
  if (minutes.at(-1) === minute) sums[sums.length - 1] = sum;
  else if (sums.length || sum !== 0n) {
    minutes.push(minute);
    sums.push(sum);
  }
}

const charts = new Map();

function draw() {
  for (const [currency, card] of cards) {
    const { minutes, sums } = days.get(currency) ?? { minutes: [], sums: [] };
    const start = Date.parse(day) / 1000;
    const upTo = Math.min(start + DAY_S, Math.max(start, Math.floor(now() / 1000)));
    const scale = 10 ** decimals[currency];
    const heights = sums.map((sum) => Number(sum) / scale);
    const times = [start, ...minutes.map((minute) => start + minute * 60), upTo];
    const data = [times, [0, ...heights, heights.at(-1) ?? 0]];
    const box = card.querySelector(".chart");
    const last = text(sums.at(-1) ?? 0n, currency);
    box.setAttribute("aria-label", `${currency} earned today: from 0 at 00:00 to ${last} at ${hour(upTo)} UTC`);
    if (!charts.has(currency) || charts.get(currency).start !== start) make(currency, box, start, data, card);
    else charts.get(currency).plot.setData(data);
    if (card.querySelector(".hours").open) byTheHour(card, minutes, sums);
  }
}

const hour = (seconds) => new Date(seconds * 1000).toISOString().slice(11, 16);

function make(currency, box, start, data, card) {
  charts.get(currency)?.plot.destroy();
  const style = getComputedStyle(document.documentElement);
  const [ink, rule, line, wash] = ["--soft", "--rule", "--mark", "--mark-wash"].map((name) => style.getPropertyValue(name));
  const font = "12px system-ui, sans-serif";
  const axis = { stroke: ink, font, grid: { stroke: rule, width: 1 }, ticks: { show: false } };
  const readout = card.querySelector(".readout");
  const narrow = box.clientWidth < 420;
  const options = {
    width: box.clientWidth, height: box.clientHeight, legend: { show: false },
    padding: [8, 20, 0, 0], cursor: { y: false, drag: { x: false, y: false } },
    scales: { x: { time: true, range: [start, start + DAY_S] }, y: { range: reach } },
    axes: [
      { ...axis, size: 30, splits: Array.from({ length: narrow ? 5 : 9 }, (_, n) => start + (n * DAY_S) / (narrow ? 4 : 8)), values: (_, at) => at.map((each) => (each === start + DAY_S ? "24:00" : hour(each))) },
      { ...axis, size: wide, values: (_, at) => at.map((each) => each.toLocaleString("en", { maximumFractionDigits: 2 }).replaceAll(",", "\u202f")) },
    ],
    series: [{}, { stroke: line, fill: wash, width: 2, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }) }],
    hooks: {
      setCursor: [(plot) => {
        const at = plot.cursor.idx;
        readout.textContent = at == null ? "" : `${hour(plot.data[0][at])} UTC: ${plot.data[1][at].toFixed(decimals[currency])} ${currency}`;
      }],
    },
  };
  charts.set(currency, { start, plot: new uPlot(options, data, box) });
}

// As wide as the widest label of the axis.
const wide = (_, labels) => 16 + 7.5 * Math.max(0, ...(labels ?? []).map((label) => label.length));
const reach = (_, least, most) => [Math.min(0, least), most > 0 ? most * 1.1 : 1];

function byTheHour(card, minutes, sums) {
  const table = document.createElement("table");
  table.append(element("caption", `Sum at the end of each hour, ${card.dataset.currency}`, "hidden"));
  for (let each = 0; each <= Math.floor((now() % DAY_MS) / 3_600_000); each += 1) {
    const upTo = minutes.findLastIndex((minute) => minute < (each + 1) * 60);
    const row = table.insertRow();
    const head = element("th", `${String(each).padStart(2, "0")}:00`);
    head.scope = "row";
    row.append(head, element("td", forPeople(text(upTo < 0 ? 0n : sums[upTo], card.dataset.currency))));
  }
  card.querySelector(".hours .table").replaceChildren(table);
}

function element(name, content, kind) {
  const made = document.createElement(name);
  if (content !== undefined) made.textContent = content;
  if (kind) made.className = kind;
  return made;
}

function again() {
  for (const { plot } of charts.values()) plot.destroy();
  charts.clear();
  draw();
}

// --- what the stream says ------------------------------------------------------------------------

const latest = new Map(); // currency -> today's sum
let latestDay = "";
const seenLines = new Map(); // contract -> how many
let seenId = 0n;

function take(event) {
  const id = /^\d+$/.test(event.id) ? BigInt(event.id) : seenId;
  if (id < seenId) return; // versions only rise: this one is older than what is shown
  seenId = id;
  const said = JSON.parse(event.data);
  const sums = new Map();
  for (const each of said.contracts) {
    if (!each.currency) continue;
    const sum = sums.get(each.currency) ?? { today: 0n, accrued: 0n, held: 0n, payable: 0n };
    for (const figure of Object.keys(sum)) sum[figure] += minor(each[figure]);
    sums.set(each.currency, sum);
  }
  for (const [currency, sum] of sums) {
    const card = cards.get(currency);
    if (!card) return location.reload(); // a first contract in another currency
    for (const [figure, amount] of Object.entries(sum)) show(card, figure, amount);
    latest.set(currency, sum.today);
  }
  latestDay = said.day;
  const at = new Date(now());
  clock.textContent = at.toISOString().slice(11, 19);
  updated.dateTime = at.toISOString();
  if (said.day !== day) readDay().catch(ignore);
  else {
    for (const [currency, sum] of latest) note(currency, sum);
    draw();
  }
  for (const { contract, lines } of said.contracts) {
    if (seenLines.get(contract) === lines) continue;
    seenLines.set(contract, lines);
    unread.add(contract);
  }
  if (unread.size) readLines();
  speak();
}

let spokenAt = 0;
let speaking = 0;

function speak() {
  clearTimeout(speaking);
  const wait = Math.max(1000, spokenAt + SPOKEN_EVERY_MS - Date.now());
  speaking = setTimeout(() => {
    spokenAt = Date.now();
    const said = [...cards].map(([currency, card]) => {
      const [today, accrued, payable] = ["today", "accrued", "payable"].map((name) => card.querySelector(`[data-figure=${name}] data`).value);
      return `${currency}: today ${today}, accrued ${accrued}, payable ${payable}.`;
    });
    spoken.textContent = said.join(" ");
  }, wait);
}

// --- lines: the server writes the rows; those that are shown never change ------------------------

let linesAt = 0;
let linesTimer = 0;
const unread = new Set(); // contracts that have lines which are not shown

function readLines() {
  if (linesTimer) return;
  linesTimer = setTimeout(async () => {
    linesTimer = 0;
    linesAt = Date.now();
    const asked = [...unread];
    unread.clear();
    try {
      const few = asked.length > NAMED_MOST ? [] : asked; // none named: all of them
      const named = new URLSearchParams(few.map((contract) => ["contract", contract]));
      const answer = await fetch(`/partners/${page.partner}/lines?${named}`, { cache: "no-store" });
      if (answer.ok) return mix(await answer.text());
    } catch (error) {
      ignore(error);
    }
    for (const contract of asked) unread.add(contract); // the stream's next event asks again
  }, Math.max(0, linesAt + LINES_EVERY_MS - Date.now()));
}

function mix(html) {
  const box = document.createElement("template");
  box.innerHTML = html;
  const known = new Set([...rows.children].map((row) => row.dataset.line));
  for (const row of [...box.content.children]) {
    if (known.has(row.dataset.line)) continue;
    row.classList.add("fresh");
    const before = [...rows.querySelectorAll("tr[data-line]")].find((each) => older(each, row));
    rows.insertBefore(row, before ?? null);
  }
  const shown = [...rows.querySelectorAll("tr[data-line]")];
  for (const row of shown.slice(LINES_SHOWN)) {
    if (row.contains(document.activeElement) || row.querySelector("[aria-expanded=true]")) continue;
    row.remove();
  }
  noRows.hidden = rows.children.length > 0;
}

function older(one, other) {
  const [a, b] = [one, other].map((row) => [row.dataset.at, Number(row.dataset.no)]);
  return a[0] < b[0] || (a[0] === b[0] && a[1] < b[1]);
}

rows.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) why(button).catch(ignore);
});

async function why(button) {
  const row = button.closest("tr");
  if (button.getAttribute("aria-expanded") === "true") {
    row.nextElementSibling.remove();
    button.setAttribute("aria-expanded", "false");
    return;
  }
  const below = element("tr", undefined, "why");
  const cell = below.insertCell();
  cell.colSpan = row.cells.length;
  const box = cell.appendChild(element("div", "Computing again\u2026", "steps"));
  box.setAttribute("role", "status");
  row.after(below);
  button.setAttribute("aria-expanded", "true");
  try {
    const answer = await fetch(`/v1/rebates/${row.dataset.line}/explanation`, { cache: "no-store" });
    const said = await answer.json();
    box.replaceChildren(answer.ok ? explained(said) : element("p", said.detail ?? said.title));
  } catch {
    box.textContent = "The explanation could not be read. Close it and ask again.";
  }
}

const moment = (text) => `${text.slice(0, 10)} ${text.slice(11, 19)} UTC`;

// The steps by which the line came about, each with its exact numbers, as sentences.
function steps({ line, fact, attribution, base, levels, before, rounding, amount, agrees }) {
  const unit = line.currency;
  const mine = levels.find((each) => each.level === line.level && each.contract === line.contract);
  const was = before.find((each) => each.level === line.level && each.contract === line.contract);
  const said = [];
  if (rounding) {
    said.push(
      `Lines pay whole units of ${unit}; what each leaves over is added up by month, here that of ${rounding.period.slice(0, 7)}.`,
      `Before this batch ${rounding.before} was left over, after it ${rounding.after}.`,
      `Of that ${rounding.paid} had been paid already.`,
    );
  }
  if (fact) said.push(`Deal ${fact.ticket} on ${fact.server}, ${moment(fact.at)}: ${fact.lots} lots ${fact.symbol}, of which ${fact.closed} closed a position.`);
  if (fact?.version > 1) said.push(`It was changed on the platform; this is version ${fact.version} of it.`);
  if (attribution?.since) said.push(`The client came through contract ${attribution.contract}, since ${moment(attribution.since)}.`);
  if (mine?.plan_hash) {
    const rule = mine.rule ? `${mine.per_lot} ${unit} a lot, by its rate for ${mine.rule}` : "nothing: it has no rate for the symbol";
    said.push(`Plan ${mine.plan}, version ${mine.plan_version} (${mine.plan_hash.slice(0, 12)}), pays ${rule}.`);
  } else if (mine) said.push("No plan was in force.");
  if (mine && mine.level > 1) said.push(`At level ${mine.level} of the chain, ${mine.below} a lot is paid below and ${mine.earned} is left.`);
  if (mine) said.push(`${mine.earned} a lot times ${base} lots is exactly ${mine.exact} ${unit}: ${mine.amount} in whole units, and ${mine.left} is carried.`);
  if (was) said.push(`The version before it gave ${was.amount}; the line is the difference.`);
  said.push(agrees ? `Computed again from what is stored: ${amount} ${unit}, as the line says.` : `Computed again it is ${amount} ${unit}, which is not what the line says: please tell us.`);
  return said;
}

function explained(said) {
  const list = element("ol");
  for (const step of steps(said)) list.append(element("li", step));
  return list;
}

// --- the connection ------------------------------------------------------------------------------

let running = null; // the AbortController of the connection that lasts
let heardAt = Date.now();
let retryMs = RETRY_MS[0];
let waiting = 0;

const STATES = { live: "Live", reconnecting: "Reconnecting", ended: "Visit ended: open a new link" };

function tell(name) {
  if (state.dataset.state === name) return;
  state.dataset.state = name;
  state.textContent = STATES[name];
}

async function connect() {
  clearTimeout(waiting);
  running?.abort();
  const mine = (running = new AbortController());
  heardAt = Date.now();
  try {
    const answer = await fetch(`${api}/stream`, {
      headers: { Accept: "text/event-stream" }, cache: "no-store", signal: mine.signal,
    });
    if ([401, 403, 404].includes(answer.status)) return tell("ended");
    if (answer.ok) {
      afterAWhile(readDay); // what the chart missed
      await read(answer.body, mine);
    }
  } catch (error) {
    ignore(error);
  }
  if (running === mine) retry();
}

async function read(body, mine) {
  const decoder = new TextDecoder();
  const reader = body.getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done || running !== mine) return;
    heardAt = Date.now();
    tell("live");
    const parts = (rest + decoder.decode(value, { stream: true })).replaceAll("\r\n", "\n").split("\n\n");
    rest = parts.pop();
    for (const part of parts) heard(part);
  }
}

function heard(part) {
  const event = { event: "message", data: "", id: "" };
  for (const line of part.split("\n")) {
    const [, name, value] = /^(\w*):? ?(.*)$/.exec(line) ?? [];
    if (name === "data") event.data += (event.data ? "\n" : "") + value;
    else if (name === "retry") retryMs = Number(value) || retryMs;
    else if (name in event) event[name] = value;
  }
  if (event.event === "balances") {
    retryMs = RETRY_MS[0];
    take(event);
  }
}

// The first time at once; after a restart of the server all pages come back in one moment.
let connected = false;

function afterAWhile(ask) {
  setTimeout(() => ask().catch(ignore), connected ? Math.random() * SPREAD_MS : 0);
  connected = true;
}

function retry() {
  tell("reconnecting");
  seenId = 0n; // the next snapshot counts, whatever it says
  clearTimeout(waiting);
  waiting = setTimeout(connect, retryMs * (0.5 + Math.random()));
  retryMs = Math.min(RETRY_MS[1], retryMs * 2);
}

function atOnce() {
  if (state.dataset.state === "ended") return;
  tell("reconnecting");
  seenId = 0n;
  retryMs = RETRY_MS[0];
  connect();
}

let tickedAt = Date.now();

function tick() {
  const slept = Date.now() - tickedAt > ASLEEP_MS;
  tickedAt = Date.now();
  if (state.dataset.state === "ended") return;
  if (slept || (running && Date.now() - heardAt > SILENCE_MS)) atOnce();
}

// --- the end of the visit --------------------------------------------------------------------------

document.getElementById("leave").addEventListener("click", async () => {
  await fetch(`/partners/${page.partner}/leave`, { method: "POST" }).catch(ignore);
  location.replace(`/partners/${page.partner}`); // whether it is over, the server says
});

const ignore = () => {}; // whatever failed is asked for again by what follows

document.documentElement.classList.add("scripted");
setInterval(tick, 1000);
setInterval(draw, 60_000);
addEventListener("online", atOnce);
addEventListener("pageshow", (event) => event.persisted && atOnce());
document.addEventListener("visibilitychange", () => !document.hidden && tick());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
for (const card of cards.values()) {
  card.querySelector(".hours").addEventListener("toggle", draw);
  new ResizeObserver(() => charts.get(card.dataset.currency)?.plot.setSize({
    width: card.querySelector(".chart").clientWidth, height: card.querySelector(".chart").clientHeight,
  })).observe(card.querySelector(".chart"));
}
draw();
connect();
