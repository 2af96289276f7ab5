// The error of a store that failed.
import * as Schema from "effect/Schema"

/** The store failed. If `retryable`, the same call may succeed later. */
export class StoreError extends Schema.TaggedError<StoreError>()("StoreError", {
  operation: Schema.String,
  retryable: Schema.Boolean,
  reason: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `store: ${this.operation} failed: ${this.reason}`
  }
}
