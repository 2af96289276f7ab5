// Locks of tags within a process: decisions over the same tag wait for each other here, instead of refusing each other in the store.
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import type { EventStore } from "./event-store.ts"
import { StreamBusy } from "./failures.ts"

type Store = EventStore["Service"]

/** How many decisions over one tag may wait; more fail with `StreamBusy`. */
const mostWaiting = 1_000

interface TagLock {
  readonly semaphore: Semaphore.Semaphore
  /** How many hold it or wait for it. */
  users: number
}
const locks = new WeakMap<Store, Map<string, TagLock>>()

/** Runs an effect while it holds the locks of an aggregate's tags. They are taken in one order, so that nobody waits in a circle. */
export const withTags = <A, E>(
  store: Store,
  {
    aggregate,
    stream,
    tags
  }: { readonly aggregate: string; readonly stream: string; readonly tags: ReadonlyArray<string> },
  effect: Effect.Effect<A, E>
): Effect.Effect<A, E | StreamBusy> => {
  const all = locks.get(store) ?? new Map<string, TagLock>()
  locks.set(store, all)
  const names = tags.map((tag) => `${aggregate} ${tag}`).toSorted()
  const enter = Effect.sync(() =>
    names.map((name) => {
      const lock = all.get(name) ?? { semaphore: Semaphore.makeUnsafe(1), users: 0 }
      all.set(name, lock)
      lock.users++
      return lock
    })
  )
  const leave = (entered: ReadonlyArray<TagLock>) =>
    Effect.sync(() => {
      for (const [i, lock] of entered.entries()) {
        lock.users--
        if (lock.users === 0) all.delete(names[i]!)
      }
    })
  const use = (entered: ReadonlyArray<TagLock>): Effect.Effect<A, E | StreamBusy> => {
    const full = entered.findIndex(({ users }) => users > mostWaiting)
    if (full === -1)
      return entered.reduceRight<Effect.Effect<A, E>>((inner, { semaphore }) => semaphore.withPermit(inner), effect)
    const reason = `${mostWaiting} decisions over ${names[full]} wait in this process`
    return Effect.fail(new StreamBusy({ aggregate, stream, reason }))
  }
  return Effect.acquireUseRelease(enter, use, leave)
}
