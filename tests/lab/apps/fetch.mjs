// Node's fetch: URL is asked for twelve times at once. With LONG, that is read as it comes before
// the twelve, and is expected to break.    fetch.mjs URL [LONG]

async function ask(url) {
	const response = await fetch(url);
	return `${response.status} ${await response.text()}`;
}

async function read(url) {
	const response = await fetch(url);
	let size = 0;
	for await (const piece of response.body) {
		size += piece.length;
		console.log("got", size);
	}
}

const [url, ...long] = process.argv.slice(2);
await ask(url);
for (const one of long) {
	try {
		await read(one);
		console.log("whole");
	} catch (error) {
		console.log("broke:", error.message);
	}
}
const answers = await Promise.all(Array.from({ length: 12 }, () => ask(url)));
console.log(answers.length, "answers:", ...new Set(answers));
