// Translates failures of Pulsar's client into the errors of the fan-out port.
import { FanOutError } from "../../subscription/fanout.ts"
import { failureOf } from "../client/errors.ts"

/** The port's error for what an operation failed with. */
export const fanOutError =
  (operation: string) =>
  (cause: unknown): FanOutError => {
    const { message: reason, retryable } = failureOf(cause, operation)
    return new FanOutError({ operation, retryable, reason, cause })
  }
