// A daemon of its own for a test: a free port, a new state folder, a registered model.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";

export const models = process.env.PARED_MODELS ?? join(homedir(), ".cache/pared-models");

function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

export async function startDaemon(program, settings = {}) {
  const folder = mkdtempSync(join(tmpdir(), "pared-web-"));
  const port = await freePort();
  writeFileSync(join(folder, "settings.json"), JSON.stringify({
    port, data_dir: join(folder, "data"), datasets_dir: join(models, "datasets"), ...settings }));
  const child = spawn(program, ["serve", "--config", join(folder, "settings.json")], { stdio: ["ignore", "ignore", "inherit"] });
  const url = `http://127.0.0.1:${port}`;
  for (let tries = 0; ; tries++) {
    try {
      await fetch(`${url}/healthz`);
      break;
    } catch (error) {
      if (tries > 100 || child.exitCode !== null) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
  const stop = async () => {
    child.kill("SIGTERM");
    await new Promise((resolve) => child.on("exit", resolve));
    rmSync(folder, { recursive: true, force: true });
  };
  return { url, stop };
}

export async function registerModel(url, name, headers = {}) {
  const body = readFileSync(join(models, name, `${name}.onnx`));
  const answer = await fetch(`${url}/v1/models/${name}`, { method: "PUT", body, headers });
  if (!answer.ok) throw new Error(await answer.text());
}
