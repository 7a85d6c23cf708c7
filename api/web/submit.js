// The submit form: a model, data, and chains of passes with the options that the daemon describes.

import { get, send, upload } from "./api.js";
import { h, problem, show } from "./dom.js";
import { optionsForm } from "./options_form.js";

function select(name, values, chosen, none) {
  const options = [...(none === undefined ? [] : [["", none]]), ...values.map((value) => [value, value])];
  const input = h("select", { name }, options.map(([value, text]) => h("option", { value }, text)));
  if (chosen) input.value = chosen;
  return input;
}

function numberInput(name, value, min, max) {
  return h("input", { name, type: "number", value, min, max, step: 1 });
}

// A chain's editor: {element, value(), at(path)}.
function chainEditor(passes, name, remove) {
  const steps = [];
  const place = h("div", {});
  const title = h("input", { value: name, required: true, pattern: "[a-z0-9][a-z0-9._\\-]*", "aria-label": "Name of the chain" });
  const addPass = (pass) => {
    const listing = passes.find((known) => known.name === pass);
    const form = optionsForm(listing.options);
    const step = { pass, form };
    const box = h("fieldset", {}, h("legend", {}, pass), h("p", { class: "hint" }, listing.summary), form.element,
                  h("button", { type: "button", onclick: () => { steps.splice(steps.indexOf(step), 1); box.remove(); } }, "Remove pass"));
    steps.push(step);
    place.append(box);
  };
  const choice = select("", passes.map((pass) => pass.name));
  choice.setAttribute("aria-label", "Pass to add");
  const element = h("fieldset", {}, h("legend", {}, "Chain"),
    h("div", { class: "row" }, h("label", {}, "Name", title), h("button", { type: "button", onclick: () => { element.remove(); remove(); } }, "Remove chain")),
    place,
    h("div", { class: "row" }, choice, h("button", { type: "button", onclick: () => addPass(choice.value) }, "Add pass")));
  return {
    element, addPass,
    value: () => ({ name: title.value, passes: steps.map(({ pass, form }) => ({ pass, ...form.value() })) }),
    at: ([first, index, ...path]) => (first === "passes" ? steps[index]?.form.at(path) ?? choice : title),
  };
}

function chainsEditor(passes) {
  const chains = [];
  const place = h("div", {});
  const add = (name, initial = []) => {
    const chain = chainEditor(passes, name, () => chains.splice(chains.indexOf(chain), 1));
    initial.filter((pass) => passes.some((known) => known.name === pass)).forEach(chain.addPass);
    chains.push(chain);
    place.append(chain.element);
  };
  const button = h("button", { type: "button", onclick: () => add(`chain-${chains.length + 1}`) }, "Add chain");
  return { element: h("div", {}, place, button), add, value: () => chains.map((chain) => chain.value()),
           at: ([index, ...path]) => chains[index]?.at(path) };
}

// The spec as the form has it; what is empty stays out.
function specOf(form, chains) {
  const field = (name) => form.elements[name].value;
  const spec = { model: field("model"), experiment: field("experiment") || "default", chains: chains.value() };
  if (field("calibration")) spec.calibration = { dataset: field("calibration"), samples: Number(field("samples")) };
  if (field("evaluate")) spec.evaluate = { dataset: field("evaluate"), runs: Number(field("runs")) };
  return spec;
}

function markAt(pointer, form, chains) {
  for (const marked of form.querySelectorAll("[aria-invalid]")) marked.removeAttribute("aria-invalid");
  if (!pointer) return;
  const [first, ...path] = pointer.split("/").slice(1);
  const names = { calibration: path[0] === "samples" ? "samples" : "calibration", evaluate: path[0] === "runs" ? "runs" : "evaluate" };
  const input = first === "chains" ? chains.at(path) : form.elements[names[first] ?? first];
  input?.setAttribute?.("aria-invalid", "true");
  input?.focus?.();
}

function uploadForm(said, models) {
  return h("form", { class: "row", onsubmit: async (event) => {
    event.preventDefault();
    const { file, name } = event.target.elements;
    said.replaceChildren("Uploading …");
    try {
      const model = await upload(`/v1/models/${encodeURIComponent(name.value)}`, file.files[0]);
      if (![...models.options].some((option) => option.value === model.name)) models.append(h("option", { value: model.name }, model.name));
      models.value = model.name;
      said.replaceChildren(`${model.name} is registered: ${model.sha256}`);
    } catch (error) {
      said.replaceChildren(problem(error));
    }
  } }, h("label", {}, "ONNX file", h("input", { type: "file", name: "file", required: true, accept: ".onnx" })),
    h("label", {}, "Name", h("input", { name: "name", required: true, pattern: "[a-z0-9][a-z0-9._\\-]*", placeholder: "my-model" })),
    h("button", {}, "Register model"));
}

// A finished job's spec as JSON, to change and submit again: it has all that the form cannot show.
function textForm(text, submit) {
  const area = h("textarea", { "aria-label": "Job spec as JSON", rows: 16, spellcheck: "false" });
  area.value = text;
  return h("form", { onsubmit: (event) => {
    event.preventDefault();
    submit(() => JSON.parse(area.value));
  } }, area, h("button", { class: "main" }, "Submit this text"));
}

export async function showSubmit(view, { query }) {
  const [{ models }, { datasets }, { passes }] = await Promise.all([get("/v1/models"), get("/v1/datasets"), get("/v1/passes")]);
  const names = datasets.map((dataset) => dataset.name ?? dataset);
  const said = h("div", { role: "status" });
  const chains = chainsEditor(passes);
  const submit = async (makeSpec, onFault = () => {}) => {
    try {
      const job = await send("POST", "/v1/jobs", makeSpec());
      location.hash = `#/jobs/${job.id}`;
    } catch (error) {
      const where = error.pointer ? h("p", { class: "hint" }, `at ${error.pointer}`) : null;
      said.replaceChildren(...[problem(error), where].filter(Boolean));
      onFault(error.pointer);
    }
  };
  const modelChoice = select("model", models.map((model) => model.name), query.get("model"));
  const form = h("form", { onsubmit: (event) => {
    event.preventDefault();
    submit(() => specOf(form, chains), (pointer) => markAt(pointer, form, chains));
  } },
    h("div", { class: "row" }, h("label", {}, "Model", modelChoice), h("label", {}, "Experiment", h("input", { name: "experiment", placeholder: "default" }))),
    h("div", { class: "row" },
      h("label", {}, "Calibration data", select("calibration", names, null, "none")),
      h("label", {}, "Samples", numberInput("samples", 128, 0, 1000000)),
      h("label", {}, "Evaluation data", select("evaluate", names, null, "as calibration")),
      h("label", {}, "Timed runs", numberInput("runs", 50, 0, 100000))),
    chains.element,
    h("div", { class: "row" }, h("button", { class: "main" }, "Submit"),
      h("button", { type: "button", onclick: () => said.replaceChildren(h("pre", {}, JSON.stringify(specOf(form, chains), null, 1))) }, "Show the spec")));
  show(view, h("h1", {}, "Submit a job"), form, said,
       h("h2", {}, "Register a model"), uploadForm(said, modelChoice));
  if (query.has("job")) {
    const job = await get(`/v1/jobs/${query.get("job")}`);
    view.append(h("h2", {}, `Spec of job ${job.id}`), textForm(JSON.stringify(job.spec, null, 1), submit));
  } else {
    chains.add("int8", ["quantize_int8"]);
  }
}
