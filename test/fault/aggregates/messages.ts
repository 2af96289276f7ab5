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
  | { readonly kind: "again"; readonly reason: string }
  | { readonly kind: "failed"; readonly reason: string }
export interface Numbered<A> {
  readonly n: number
  readonly of: A
}
