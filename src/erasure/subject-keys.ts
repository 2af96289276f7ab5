// The port of the keys that protect personal data: one newest key for each subject, and tombstones of those that were destroyed.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { SubjectErased, SubjectKeysError } from "./errors.ts"
import type { FindKey, SubjectKey } from "./sealed.ts"

/** What an erasure did. */
export interface ErasedSubject {
  /** The subject whose data was erased. */
  readonly subject: string
  /** How many keys were destroyed by this call; 0 if the subject was erased before, or had none. */
  readonly keys: number
  /** How many snapshots were deleted, which had states with the subject's data. */
  readonly snapshots: number
  /** The number of the newest key, which all are destroyed up to. */
  readonly number: number
}

/** The tag by which the events about a subject are found. No tag of an aggregate begins with `$`. */
export const subjectTag = (subject: string): string => `$subject:${subject}`

/** The keys of subjects. */
export class SubjectKeys extends Context.Service<
  SubjectKeys,
  {
    /** The newest key of each subject; creates what is missing. Fails with `SubjectErased` if the newest one was destroyed. */
    readonly newest: (
      subjects: ReadonlyArray<string>
    ) => Effect.Effect<ReadonlyMap<string, SubjectKey>, SubjectErased | SubjectKeysError>
    /** Finds the keys that these JSON texts of events need. Keys may be a minute old: a destroyed one may still be found for so long. */
    readonly forValues: (values: Iterable<string | null>) => Effect.Effect<FindKey, SubjectKeysError>
    /** Destroys the keys of a subject and the snapshots with its data. Events with its personal data are refused from then on. */
    readonly erase: (subject: string) => Effect.Effect<ErasedSubject, SubjectKeysError>
    /** Gives an erased subject a new key: what was erased stays so, and new personal data is stored again. False if it was not erased. */
    readonly readmit: (subject: string) => Effect.Effect<boolean, SubjectKeysError>
  }
>()("millrace/SubjectKeys") {}

/** The keys of a system without personal data: there are none. */
export const noKeys: Pick<SubjectKeys["Service"], "forValues"> = { forValues: () => Effect.succeed(() => undefined) }
