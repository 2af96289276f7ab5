// Explains why a JSON text was refused: it is no JSON, or breaks one of the rules for values. Pure.
import { describeError } from "../../dead-letter/event-failure.ts"
import { type JsonFault, UnacceptableJson } from "../../log/json.ts"
import { fault, type Fault, type FaultCode } from "./problem.ts"

/** The code and the advice for each rule that a JSON text can break. */
const jsonFaults: Readonly<Record<JsonFault, readonly [FaultCode, string]>> = {
  utf8: ["invalid_utf8", "encode the line as UTF-8"],
  depth: ["nesting_too_deep", "flatten the event"],
  name: ["forbidden_key", "rename the field"],
  character: ["forbidden_character", "remove it, or encode the text, for example as base64"],
  duplicate: ["duplicate_key", "send the field once"]
}
/** The error that `parseJson` threw, as a fault. `what` names the value: `event` or `command`. */
export const jsonFault = (error: unknown, what: "event" | "command"): Fault => {
  if (error instanceof UnacceptableJson) {
    const [code, advice] = jsonFaults[error.fault]
    const message = error.message.replace(/^the value /, `the ${what} `)
    return fault(code, message, advice.replace("event", what), error.path)
  }
  const { message } = describeError(error)
  const advice = "send one complete JSON object (NaN and Infinity are not JSON)"
  return fault("malformed_json", `the ${what} is not valid JSON: ${message}`, advice)
}
