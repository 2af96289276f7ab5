// The keys of subjects in memory, for tests and trials.
import { randomBytes } from "node:crypto"
import * as Effect from "effect/Effect"
import { SubjectErased } from "../erasure/errors.ts"
import type { SubjectKey } from "../erasure/sealed.ts"
import { SubjectKeys } from "../erasure/subject-keys.ts"

/** Keys in memory. `erased` is called after each erasure, with the subject; it returns how many snapshots it deleted. */
export const make = (erased: (subject: string) => number): SubjectKeys["Service"] => {
  /** The keys of each subject, in the order of their numbers; null: destroyed. */
  const keys = new Map<string, Array<Uint8Array | null>>()
  const of = (subject: string) => {
    const found = keys.get(subject) ?? []
    keys.set(subject, found)
    return found
  }
  const create = () => new Uint8Array(randomBytes(32))
  return SubjectKeys.of({
    newest: Effect.fnUntraced(function* (subjects) {
      const found = new Map<string, SubjectKey>()
      const gone: Array<string> = []
      for (const subject of subjects) {
        const all = of(subject)
        if (all.length === 0) all.push(create())
        const key = all.at(-1)!
        if (key === null) gone.push(subject)
        else found.set(subject, { subject, number: all.length, key })
      }
      return gone.length === 0 ? found : yield* new SubjectErased({ subjects: gone })
    }),
    forValues: () => Effect.succeed(({ number, subject }) => keys.get(subject)?.[number - 1]),
    erase: (subject) =>
      Effect.sync(() => {
        const all = of(subject)
        const destroyed = all.filter((key) => key !== null).length
        if (all.length === 0) all.push(null)
        all.fill(null)
        return { subject, keys: destroyed, snapshots: erased(subject), number: all.length }
      }),
    readmit: (subject) =>
      Effect.sync(() => {
        const all = of(subject)
        if (all.length === 0 || all.at(-1) !== null) return false
        all.push(create())
        return true
      })
  })
}
