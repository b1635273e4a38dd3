{{- define "wisp.labels" -}}
app.kubernetes.io/name: wisp-node-installer
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: wisp
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end }}

{{- define "wisp.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "wisp.address" -}}
{{- $known := dict "k3s" "/run/k3s/containerd/containerd.sock" "rke2" "/run/k3s/containerd/containerd.sock" "k0s" "/run/k0s/containerd.sock" "microk8s" "/var/snap/microk8s/common/run/containerd.sock" -}}
{{- .Values.installer.address | default (get $known .Values.distribution) -}}
{{- end }}
