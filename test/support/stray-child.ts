// Handlers in a process of their own that leave behind rejected promises and timers that throw; or, with `foreign`, other code that does.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { logStrayErrors } from "../../src/cli/stray-errors.ts"
import { Event, Projection, Topic } from "../../src/index.ts"
import { MemoryEngine } from "../../src/runner/in-memory.ts"

const Put = Event.make("put", { how: Schema.String })
const puts = Topic.events("puts", { events: [Put], key: "how" })
const reject = () => void Promise.reject(new Error("nobody waits"))
const stray: Readonly<Record<string, () => unknown>> = {
  plain: reject,
  late: () => setTimeout(() => void Promise.reject(Object.create(null)), 1) && undefined,
  timer: () =>
    setTimeout(() => {
      throw new Error("in a timer")
    }, 1) && undefined,
  effect: () => Effect.andThen(Effect.sleep(1), Effect.sync(reject)),
  promise: () => Effect.promise(async () => reject())
}
const projection = Projection.make({
  name: "p",
  version: 1,
  source: puts,
  writes: [],
  handle: ((event: { how: string }) => stray[event.how]!()) as never
})
const wait = Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 50)))
const main = Effect.gen(function* () {
  yield* logStrayErrors
  if (process.argv[2] === "foreign") setTimeout(reject, 1)
  else if (process.argv[2] === "foreign-timer")
    setTimeout(() => {
      throw new Error("nobody catches")
    }, 1)
  else yield* new MemoryEngine(projection).process(Object.keys(stray).map((how) => Put.make({ how })))
  yield* wait
  process.stdout.write("alive\n")
})
await Effect.runPromise(Effect.scoped(main) as Effect.Effect<void>)
