// Ends a process that npm started once npm's shell has ended.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/** How often the parent is looked at, in milliseconds. */
const everyMs = 250

/** Whether npm runs a script with this command in it, and waits for it: variables are inherited by all that a script starts. */
const isOfScript = (script = ""): boolean => script.includes("millrace") && !/&\s*$/.test(script)
/**
 * `npm start`, `npm run` and `npx` run a command in a shell. They pass SIGTERM to that shell, which ends and leaves the command running. So a command
 * that one of them started sends itself SIGTERM once it has another parent. On Windows a process keeps the number of its parent: nothing happens there.
 */
export const endWithScript: Effect.Effect<void, never, Scope.Scope> = Effect.suspend(() => {
  if (!isOfScript(process.env["npm_lifecycle_script"])) return Effect.void
  const parent = process.ppid
  const look = Effect.suspend(() => {
    if (process.ppid === parent) return Effect.void
    process.kill(process.pid, "SIGTERM")
    return Effect.never
  })
  return Effect.asVoid(Effect.forkScoped(Effect.forever(Effect.delay(look, everyMs))))
})
