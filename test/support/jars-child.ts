// A process of its own that wants Kafka's jars; not a test itself. It prints their folder, or the reason and message of the error.
import type { StackError } from "../../stack/errors.ts"
import { jars } from "../../stack/jars.ts"

const said = await jars("kafka").catch(({ message, reason }: StackError) => `${reason}: ${message}`)
process.stdout.write(`${said}\n`)
