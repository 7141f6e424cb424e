// Starts `partita lsp` for the specs that are open; everything else is the server's work.
const vscode = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

exports.activate = () => {
  const [command, ...args] = vscode.workspace.getConfiguration("partita").get("command");
  client = new LanguageClient("partita", "Partita", { command, args }, { documentSelector: [{ language: "partita" }] });
  return client.start();
};

exports.deactivate = () => client?.stop();
