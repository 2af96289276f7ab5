// Position tokens where subscriptions are on Pulsar.
import * as Effect from "effect/Effect"
import { expect, test } from "vitest"
import { positionToken } from "../../../src/log/position-token.ts"
import { fromCluster } from "../../../src/pulsar/subscription/fanout.ts"
import type { Cluster } from "../../../src/pulsar/client/cluster.ts"

test("a token is refused before anything is asked of Pulsar, with what to do", async () => {
  const fanOut = fromCluster({} as Cluster)
  const token = positionToken([{ topic: "orders.v1", partition: 0, position: 1 }])
  const options = { topic: "orders.v1", name: "mails", type: "shared" } as const
  for (const asked of [
    Effect.scoped(fanOut.subscribe({ ...options, from: { token } })),
    fanOut.seek(options, { token })
  ]) {
    const error = await Effect.runPromise(Effect.flip(asked))
    expect(error).toMatchObject({ _tag: "FanOutError", retryable: false })
    expect(error.message).toMatch(
      /has positions of the log, and the messages of Pulsar have others\. try: start at the time/
    )
  }
})
