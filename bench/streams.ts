// Fan-out of one topic to clients of server-sent events and of WebSockets: the time from before an append to when a client has the record. The log is in memory, and clients are a process of their own.
import { spawn } from "node:child_process"
import { once } from "node:events"
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import { alert, start } from "../test/support/http.ts"
import { WebSocket } from "ws"

const { values } = parseArgs({
  options: {
    clients: { type: "string", default: "100" },
    rate: { type: "string", default: "1000" },
    seconds: { type: "string", default: "10" },
    // of the process of the clients
    kind: { type: "string" },
    url: { type: "string" }
  }
})
const [clients, rate, seconds] = [Number(values.clients), Number(values.rate), Number(values.seconds)]
const path = "/v1/topics/alerts.v1/stream"
const total = rate * seconds
const now = () => performance.timeOrigin + performance.now()

/** Reads all records by every client, and prints how late they were. */
const read = async (kind: string, url: string): Promise<void> => {
  const late: Array<number> = []
  let ready = 0
  const took = (data: string) => late.push(now() - (JSON.parse(data) as { readonly score: number }).score)
  const one = async (): Promise<void> => {
    const response = await fetch(url + path)
    if (++ready === clients) process.stdout.write("ready\n")
    let rest = ""
    let seen = 0
    for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + chunk).split("\n")
      rest = lines.pop()!
      for (const line of lines) {
        if (!line.startsWith("data: ")) continue
        took(line.slice(6))
        if (++seen === total) return
      }
    }
  }
  const socket = (): Promise<void> =>
    new Promise((done) => {
      const client = new WebSocket(url.replace("http", "ws") + path)
      let seen = 0
      client.on("message", (text) => {
        const message = String(text)
        if (message.includes('"event":"position"')) {
          if (++ready === clients) process.stdout.write("ready\n")
          return
        }
        took(message.slice(message.indexOf('"data":') + 7, -1))
        if (++seen === total) done(client.terminate())
      })
    })
  await Promise.all(Array.from({ length: clients }, kind === "websocket" ? socket : one))
  late.sort((a, b) => a - b)
  const at = (q: number) => Number(late[Math.min(late.length - 1, Math.floor(q * late.length))]!.toFixed(1))
  process.stdout.write(
    `${JSON.stringify({ kind, clients, rate, messages: late.length, p50: at(0.5), p99: at(0.99), max: at(1) })}\n`
  )
  process.exit()
}

if (values.kind !== undefined && values.url !== undefined) await read(values.kind, values.url)
for (const kind of ["sse", "websocket"]) {
  const server = await start()
  const flags = [
    "--kind",
    kind,
    "--url",
    server.url,
    "--clients",
    values.clients,
    "--rate",
    values.rate,
    "--seconds",
    values.seconds
  ]
  const child = spawn(process.execPath, [import.meta.filename, ...flags], { stdio: ["ignore", "pipe", "inherit"] })
  await once(child.stdout, "data")
  child.stdout.pipe(process.stdout)
  const ended = once(child, "exit")
  const started = performance.now()
  for (let sent = 0; sent < total;) {
    const due = Math.min(total, Math.floor(((performance.now() - started) / 1000) * rate))
    const records = Array.from({ length: due - sent }, (_, i) =>
      Object.assign(alert(`b-${sent + i}`, `K${(sent + i) % 97}`), {
        value: JSON.stringify({ alert_id: `b-${sent + i}`, score: now() })
      })
    )
    if (records.length > 0) await Effect.runPromise(server.log.append("alerts.v1", records))
    sent = due
    await new Promise((done) => setTimeout(done, 2))
  }
  await ended
  await server.stop()
}
