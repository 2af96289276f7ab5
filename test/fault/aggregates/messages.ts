// What the harness and its writer processes send each other.
import type { Expected } from "../../../src/aggregate/event-store.ts"

/** A command that a writer process executes. */
export interface Request {
  readonly id: string
  readonly stream: string
  /** `raw` appends without a decision, whatever the stream's state is. */
  readonly kind: "add" | "take" | "raw"
  readonly amounts: ReadonlyArray<number>
  readonly expected: Expected
}
/** A decision within tags. */
export interface Decide {
  readonly kind: "decide"
  readonly id: string
  /** The stream that gets the event. */
  readonly desk: string
  /** What the event adds to its tags. */
  readonly changes: Readonly<Record<string, number>>
  /** The tags of the boundary; those of `changes` are among them. */
  readonly reads: ReadonlyArray<string>
  /** What the sums over some tags must be afterwards; otherwise it is rejected. */
  readonly limits: ReadonlyArray<{
    readonly tags: ReadonlyArray<string>
    readonly least: number
    readonly most: number
  }>
}
/** What a writer process does beside the ledgers. */
export type SideRequest =
  | Decide
  | { readonly kind: "place"; readonly id: string; readonly job: string; readonly afterMs: number }
  | { readonly kind: "cancel"; readonly id: string; readonly job: string }
  | { readonly kind: "write"; readonly id: string; readonly person: string; readonly text: string }
  | { readonly kind: "erase" | "read"; readonly id: string; readonly person: string }

/** Its answer. `again`: it is unknown whether it was executed, so it must be sent again. */
export type Reply =
  | {
      readonly kind: "executed"
      readonly version: number
      readonly count: number
      /** Of the last event. */
      readonly position: string
      readonly repeated: boolean
    }
  | { readonly kind: "rejected"; readonly tag: string }
  | { readonly kind: "conflict"; readonly actual: number }
  /** The data of its subject was erased. */
  | { readonly kind: "erased" }
  /** What was read. */
  | { readonly kind: "state"; readonly texts: ReadonlyArray<string> }
  | { readonly kind: "again"; readonly reason: string }
  | { readonly kind: "failed"; readonly reason: string }
export interface Numbered<A> {
  readonly n: number
  readonly of: A
}
