// The export of what is stored about a subject, for tests.
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { exportSubject } from "../../src/system/subject-export.ts"

/** The events of an export that is complete. */
export const exported = (...args: Parameters<typeof exportSubject>) =>
  Effect.map(Stream.runCollect(exportSubject(...args)), (parts) =>
    parts.map((part) => {
      assert.strictEqual(part._tag, "Event")
      return (part as Extract<typeof part, { readonly _tag: "Event" }>).event
    })
  )
