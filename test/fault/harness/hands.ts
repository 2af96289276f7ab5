// Carries out a plan with two hands, which work at the same time. The steps themselves are each harness's own.
import type { FaultRun, FaultRunOptions } from "./fault-run.ts"
import type { Worker } from "./fleet.ts"
import { Gate } from "./gate.ts"
import { assertAlive } from "./until.ts"

/** Carries out steps. `Role` is what a process under test runs. */
export abstract class Hands<Step extends { readonly kind: string }, Role extends string> {
  protected abstract readonly run: FaultRun<FaultRunOptions>
  /** How many processes run besides those that steps start. */
  protected abstract readonly regular: Readonly<Record<Role, number>>
  /** Steps pass it before they start a process, and close it while a service is down. */
  protected readonly gate = new Gate()
  private done = 0

  /** Starts a regular process. */
  protected abstract launch(role: Role): void
  /** Adds load until this share of it, from 0 to 1, is there. */
  protected abstract feed(share: number): Promise<void>
  /** Causes a fault, and waits until it has happened. */
  protected abstract perform(step: Step): Promise<void>
  /** Runs after each step. */
  protected after(): Promise<void> {
    return Promise.resolve()
  }

  /** Runs all hands until each has done its steps, or until no further step may begin. After each step its role has its regular processes again. */
  protected async runHands(
    hands: ReadonlyArray<readonly [steps: ReadonlyArray<Step>, role: Role]>,
    mayGoOn: () => boolean = () => true
  ): Promise<void> {
    const { run } = this
    const all = hands.reduce((sum, [steps]) => sum + steps.length, 0)
    const hand = async (steps: ReadonlyArray<Step>, role: Role) => {
      await this.restock(role)
      for (const step of steps) {
        if (!mayGoOn()) return
        run.assertSound()
        await this.feed((this.done + 1) / all)
        const began = performance.now()
        await this.perform(step)
        this.done++
        const seconds = ((performance.now() - began) / 1_000).toFixed(1)
        run.say(`${this.done} of ${all}: ${JSON.stringify(step)} ${seconds} s`)
        assertAlive(run.fleet)
        await this.restock(role)
        await this.after()
      }
    }
    // if one hand fails the other one stops waiting, and both have ended before anything is closed
    await Promise.all(hands.map(([steps, role]) => hand(steps, role).catch(run.fail)))
    run.assertSound()
  }
  /** Starts regular processes of a role that are missing. */
  protected async restock(role: Role): Promise<void> {
    await this.gate.passage
    for (let n = this.run.fleet.of(role).length; n < this.regular[role]; n++) this.launch(role)
  }
  /** Ends all processes of a role but these, so that they get all the work. */
  protected async leaveTo(role: Role, ...those: ReadonlyArray<Worker>): Promise<void> {
    const others = this.run.fleet.of(role).filter((worker) => !those.includes(worker))
    await Promise.all(others.map((worker) => worker.end("SIGTERM")))
  }
  /** Checks that the process was killed at its point, and counts the fault. */
  protected noteKilled(worker: Worker, fault: string): void {
    if (worker.exit !== "SIGKILL") throw new Error(`${worker.role} ended with ${worker.exit}:\n${worker.output}`)
    this.run.note(fault)
  }
}
