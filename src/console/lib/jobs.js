// Requests that may take long: the server answers with a job, which is asked until it has ended.
import { ApiError, get, send } from "./api.js"

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
export const jobPath = (id) => `/v1/operations/jobs/${encodeURIComponent(id)}`

/** Sends a request that may become a job, and waits for its end: its result. `onProgress` gets each answer meanwhile. Rejects with the job's error. */
export const runJob = async (path, body, onProgress) => {
  let { body: state } = await send("POST", path, { body })
  while (state.state === "running") {
    onProgress?.(state)
    await sleep(500)
    state = await get(jobPath(state.id))
  }
  if (state.state !== "failed") return state.result
  const { code, message, try: advice } = state.error
  throw new ApiError({ code, message, advice, status: 0 })
}
