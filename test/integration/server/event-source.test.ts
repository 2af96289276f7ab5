// The EventSource of Node, whose standard is that of browsers, across a restart of the server. The log is in memory.
import { spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { expect, onTestFinished, test } from "vitest"
import { serveHealth } from "../../../src/server/server.ts"
import { alert, publish, start, stream } from "../../support/http.ts"

/** Prints what happens to an EventSource, a line of JSON each. */
const client = `
// Node would end while it waits to connect again
setInterval(() => {}, 1_000)
const source = new EventSource(process.argv[1])
const print = (...line) => console.log(JSON.stringify(line))
source.onopen = () => print("open")
source.onerror = () => print("error", source.readyState)
source.addEventListener("end", ({ data }) => print("end", JSON.parse(data).reason))
source.addEventListener("alert", ({ data }) => print("alert", JSON.parse(data).alert_id))
`
/** Starts one in a process of its own. `until` resolves when it has told of this, and to all that it told. */
const eventSource = (url: string) => {
  const child = spawn(process.execPath, ["--no-warnings", "--experimental-eventsource", "-e", client, url])
  const told: Array<string> = []
  const lines = createInterface({ input: child.stdout })
  lines.on("line", (line) => told.push(line))
  onTestFinished(() => void child.kill())
  const until = async (...line: ReadonlyArray<string | number>): Promise<ReadonlyArray<string>> => {
    const text = JSON.stringify(line)
    while (!told.includes(text)) await once(lines, "line")
    return told
  }
  return { until }
}

// Deno has its own EventSource, and starts no process of Node
test.skipIf("Deno" in globalThis)(
  "EventSource gets every record once across a restart, and is told meanwhile to come again",
  { timeout: 60_000 },
  async () => {
    const first = await start()
    const port = Number(new URL(first.url).port)
    const source = eventSource(`${first.url}/v1/alerts`)
    await source.until("open")
    await publish(first, [alert("before", "N1")])
    await source.until("alert", "before")
    await first.stop()

    const starting = Effect.runSync(Scope.make())
    await Effect.runPromise(Scope.provide(serveHealth({ port, isStarting: true }), starting))
    await source.until("end", "starting")
    const url = `http://127.0.0.1:${port}/v1/alerts`
    // other clients are told by the status
    for (const accept of ["*/*", "text/event-stream, application/json", "application/json"]) {
      const answer = await fetch(url, { headers: { accept } })
      expect([answer.status, answer.headers.get("retry-after")]).toEqual([503, "1"])
      expect(await answer.json()).toMatchObject({ error: { code: "starting" } })
    }
    await Effect.runPromise(Scope.close(starting, Exit.void))

    await publish(first, [alert("meanwhile", "N1")])
    const second = await start({ port }, first.log)
    onTestFinished(() => second.stop())
    await source.until("alert", "meanwhile")
    await publish(second, [alert("after", "N1")])
    const told = await source.until("alert", "after")
    expect(told.filter((line) => line.startsWith('["alert"'))).toEqual(
      ["before", "meanwhile", "after"].map((id) => JSON.stringify(["alert", id]))
    )
  }
)

test("a refusal that passes tells EventSource to come again; one that does not has its status", async () => {
  const server = await start({ limits: { streams: 1 } })
  onTestFinished(() => server.stop())
  const headers = { accept: "text/event-stream" }
  expect((await fetch(`${server.url}/v1/topics/nothing/stream`, { headers })).status).toBe(404)
  const only = await stream(`${server.url}/v1/alerts`, headers)
  const full = await fetch(`${server.url}/v1/alerts`, { headers })
  expect([full.status, full.headers.get("content-type")]).toEqual([200, "text/event-stream; charset=utf-8"])
  expect(await full.text()).toMatch(/^retry: 5000\n\nevent: end\ndata: \{"reason":"overloaded",.*\}\n\n$/)
  expect((await fetch(`${server.url}/v1/alerts`)).status).toBe(429)
  only.close()
})
