"use strict";

const token = document.getElementById("token");
const problem = document.getElementById("error");
let links = [];

async function call(method, path, body) {
	const headers = {};
	if (token.value)
		headers.Authorization = "Bearer " + token.value;
	if (body !== undefined)
		headers["Content-Type"] = "application/json";
	const answer = await fetch(path, {
		method, headers, body: body === undefined ? undefined : JSON.stringify(body),
	});
	if (!answer.ok) {
		const text = await answer.json().then((p) => p.detail, () => answer.statusText);
		throw new Error(text);
	}
	return answer.status === 204 ? null : answer.json();
}

/* Run a command, say what went wrong, show what came of it. */
async function act(method, path, body) {
	try {
		await call(method, path, body);
		await refresh();
	} catch (error) {
		say(error);
	}
}

function say(error) {
	problem.hidden = !error;
	problem.textContent = error ? error.message : "";
}

function element(tag, text, className) {
	const e = document.createElement(tag);
	if (text !== undefined && text !== null)
		e.textContent = text;
	if (className)
		e.className = className;
	return e;
}

function button(text, label, run) {
	const b = element("button", text);
	b.setAttribute("aria-label", label);
	b.dataset.key = label;
	b.addEventListener("click", run);
	return b;
}

/* columns: [title, cell(item), class]; a cell is text or an array of elements. */
function show(id, items, columns, empty) {
	const place = document.getElementById(id);
	const focused = place.contains(document.activeElement) && document.activeElement.dataset.key;
	if (items.length === 0) {
		place.replaceChildren(element("p", empty, "soft"));
		return;
	}
	const table = element("table");
	const head = table.createTHead().insertRow();
	for (const [title] of columns)
		head.append(element("th", title));
	const body = table.createTBody();
	for (const item of items) {
		const row = body.insertRow();
		for (const [title, cell, className] of columns) {
			const value = cell(item);
			const td = element("td", undefined, className);
			td.dataset.name = title;
			if (Array.isArray(value)) {
				const box = element("span");
				box.append(...value);
				td.append(box);
			} else {
				td.append(element("span", value));
			}
			row.append(td);
		}
	}
	const wide = element("div", undefined, "wide");
	wide.append(table);
	place.replaceChildren(wide);
	/* The table is new every time: whoever works with the keyboard stays where he was. */
	for (const b of focused ? place.querySelectorAll("button") : [])
		if (b.dataset.key === focused)
			b.focus();
}

function bytes(n) {
	const units = ["B", "KB", "MB", "GB"];
	let i = 0;
	for (; n >= 1000 && i < units.length - 1; i++)
		n /= 1000;
	return (i ? n.toFixed(1) : n) + " " + units[i];
}

function time(text) {
	return text ? new Date(text).toLocaleString() : "";
}

function move(index, by) {
	const order = links.map((link) => link.name);
	[order[index], order[index + by]] = [order[index + by], order[index]];
	act("PUT", "v1/links/order", { order });
}

function linkButtons(link) {
	const index = links.indexOf(link);
	const path = "v1/links/" + encodeURIComponent(link.name);
	const list = [];
	if (index > 0)
		list.push(button("↑", "prefer " + link.name, () => move(index, -1)));
	if (index < links.length - 1)
		list.push(button("↓", "prefer " + link.name + " less", () => move(index, 1)));
	list.push(button(link.enabled ? "Disable" : "Enable", "switch " + link.name, () =>
		act("PATCH", path, { enabled: !link.enabled })));
	return list;
}

function requestButtons(request) {
	const path = "v1/requests/" + request.id;
	const list = [];
	if (request.state === "stored" || request.state === "failed")
		list.push(button("Retry", "retry " + request.id, () => act("POST", path + "/retry")));
	if (request.state !== "sending")
		list.push(button("Delete", "delete " + request.id, () => act("DELETE", path)));
	return list;
}

function showStatus(status) {
	const summary = document.getElementById("summary");
	const sick = Object.entries(status.health).filter(([, part]) => !part.ok);
	summary.replaceChildren(
		element("strong", status.online ? "online" : "offline", status.online ? "good" : "bad"),
		` · ${status.version} · up ${Math.round(status.uptime)} s · ${status.queue.held} held · ` +
		`${status.queue.stored} stored · ${bytes(status.queue.bytes)} of ` +
		`${bytes(status.queue.max_bytes)}` +
		(sick.length ? " · " + sick.map(([name, part]) => `${name}: ${part.detail}`).join(", ") : ""));
}

function showLinks(list) {
	links = list.items.slice().sort((a, b) => a.priority - b.priority);
	show("links", links, [
		["Link", (l) => l.name],
		["Interface", (l) => l.interface],
		["State", (l) => [element("span", l.state, l.state === "online" ? "good" : "bad")]],
		["Priority", (l) => l.priority + (l.metered ? ", metered" : "")],
		["Evidence", (l) => l.evidence, "text"],
		["In / out", (l) => bytes(l.bytes.in) + " / " + bytes(l.bytes.out)],
		["Change", linkButtons],
	], "No links are configured.");
}

function showRequests(list) {
	show("requests", list.items, [
		["State", (r) => r.state],
		["Request", (r) => r.method + " " + r.url, "text"],
		["From", (r) => r.source],
		["Received", (r) => time(r.received)],
		["Tries", (r) => String(r.attempts)],
		["Response", (r) => r.response ? String(r.response.status) : "none"],
		["Do", requestButtons],
	], "Nothing is held or stored.");
}

function showNames(list) {
	show("names", list.items, [
		["Name", (n) => n.name, "text"],
		["Virtual", (n) => [n.virtual.ipv4, n.virtual.ipv6].filter(Boolean).join(", "), "text"],
		["Real", (n) => n.real.join(", "), "text"],
		["In the kernel", (n) => n.published ? "yes" : "no"],
	], "No names yet.");
}

function showCounters(list) {
	show("counters", list.items, [
		["Interface", (c) => c.interface || "any"],
		["Hook", (c) => c.hook],
		["Verdict", (c) => c.verdict],
		["Reason", (c) => c.meaning || c.reason, "text"],
		["Packets", (c) => String(c.packets), "number"],
		["Bytes", (c) => bytes(c.bytes), "number"],
	], "Nothing was counted yet.");
}

async function refresh() {
	const [status, linkList, requests, names, counters] = await Promise.all(
		["v1/status", "v1/links", "v1/requests?limit=50", "v1/names?limit=50", "v1/counters"]
			.map((path) => call("GET", path)));
	showStatus(status);
	showLinks(linkList);
	showRequests(requests);
	showNames(names);
	showCounters(counters);
	say(null);
}

async function loop() {
	try {
		await refresh();
	} catch (error) {
		say(error);
	}
	setTimeout(loop, 2000);
}

loop();
