// The errors of erasure: data that was erased, and keys that cannot be had.
import * as Schema from "effect/Schema"
import { shown } from "../text/text.ts"

/** Personal data of these subjects was erased, so no more of it is stored. */
export class SubjectErased extends Schema.TaggedError<SubjectErased>()("SubjectErased", {
  subjects: Schema.Array(Schema.String)
}) {
  override get message() {
    return `the personal data of ${this.subjects.map((subject) => shown(subject)).join(", ")} was erased; load again and decide without it`
  }
}

/** The keys of personal data could not be read or written. `retryable`: the same call may succeed later. */
export class SubjectKeysError extends Schema.TaggedError<SubjectKeysError>()("SubjectKeysError", {
  operation: Schema.Literals(["create", "find", "erase", "readmit"]),
  retryable: Schema.Boolean,
  reason: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `keys of personal data: ${this.operation} failed: ${this.reason}`
  }
}
