// A standalone Pulsar from the stack: its admin interface and its WebSocket answer, and published messages survive kill -9.
import * as Effect from "effect/Effect"
import { assert, it } from "@effect/vitest"
import { pulsar } from "../../../stack/testing.ts"
import { owning } from "../../support/stack.ts"

/** Opens a WebSocket to the broker, sends a message if one is given, and returns the first message that comes back. */
const exchange = (url: string, message?: object): Promise<Record<string, unknown>> =>
  new Promise((resolve, reject) => {
    const socket = new WebSocket(url)
    socket.addEventListener("open", () => message !== undefined && socket.send(JSON.stringify(message)))
    socket.addEventListener("error", () => reject(new Error(`${url} failed`)))
    socket.addEventListener("message", ({ data }) => {
      resolve(JSON.parse(String(data)) as Record<string, unknown>)
      socket.close()
    })
  })

const suite = await owning("pulsar")

suite("pulsar", () => {
  it.live(
    "answers, and keeps published messages when it is killed",
    Effect.fnUntraced(function* () {
      const broker = yield* pulsar()
      const { MILLRACE_PULSAR_ADMIN_URL: admin = "", MILLRACE_PULSAR_URL: url = "" } = broker.endpoints
      assert.match(url, /^pulsar:\/\/127\.0\.0\.1:\d+$/)
      const made = yield* Effect.promise(() => fetch(`${admin}/admin/v2/namespaces/public/mine`, { method: "PUT" }))
      assert.strictEqual(made.status, 204)
      const topic = `${admin.replace("http", "ws")}/ws/v2`
      const sent = yield* Effect.promise(() =>
        exchange(`${topic}/producer/persistent/public/mine/t`, { payload: btoa("hello"), key: "k" })
      )
      assert.strictEqual(sent["result"], "ok")

      const first = broker.pid()
      yield* broker.kill
      assert.isUndefined(broker.pid())
      yield* broker.start
      assert.notStrictEqual(broker.pid(), first)
      const read = yield* Effect.promise(() => exchange(`${topic}/reader/persistent/public/mine/t?messageId=earliest`))
      assert.strictEqual(atob(String(read["payload"])), "hello")
    }),
    // The first run fetches 235 MB of jars.
    600_000
  )
})
