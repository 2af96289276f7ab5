// The repair of kafkajs's request queue, without a broker.
import { createRequire } from "node:module"
import { afterEach, expect, test, vi } from "vitest"
import { KafkaJs } from "../../../../src/kafka/protocol/kafkajs.ts"

interface RequestQueue {
  readonly push: (request: object) => void
  readonly fulfillRequest: (answer: object) => void
  readonly maybeThrottle: (ms: number) => void
  readonly destroy: () => void
}
const Queue = createRequire(import.meta.url)("kafkajs/src/network/requestQueue") as new (
  options: object
) => RequestQueue
const logger = { debug: () => undefined, warn: () => undefined }
const options = { requestTimeout: 1_000, clientId: "test", broker: "broker", logger }
const queueOf = () => new Queue(options)
const request = (correlationId: number, sendRequest: () => void = () => undefined) => ({
  entry: { correlationId, resolve: () => undefined, reject: () => undefined },
  expectResponse: true,
  sendRequest
})

afterEach(() => vi.restoreAllMocks())

test("kafkajs itself is what this file exports, repaired", () => {
  expect(KafkaJs).toBe(createRequire(import.meta.url)("kafkajs"))
})

test("an answered request sets no timer, and so none of a negative time, of which Node warns", () => {
  const timers = vi.spyOn(globalThis, "setTimeout")
  const queue = queueOf()
  queue.push(request(1))
  queue.fulfillRequest({ correlationId: 1, payload: Buffer.alloc(0), size: 0 })
  expect(timers).not.toHaveBeenCalled()
})

test("a request that the broker wants held back is sent when its time has come", async () => {
  const timers = vi.spyOn(globalThis, "setTimeout")
  const queue = queueOf()
  queue.maybeThrottle(20)
  const from = performance.now()
  await new Promise<void>((resolve) => queue.push(request(1, resolve)))
  expect(performance.now() - from).toBeGreaterThan(15)
  expect(timers.mock.calls.every(([, delay]) => (delay ?? 0) > 0)).toBe(true)
  queue.destroy()
})
